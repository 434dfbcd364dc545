#include "storage/model_text.hpp"

#include <array>
#include <utility>

namespace mcpgw::detail {
namespace {

template <class Enum>
using Word = std::pair<Enum, std::string_view>;

constexpr std::array<Word<TokenKind>, 2> kTokenKinds{{{TokenKind::login, "login"}, {TokenKind::api, "api"}}};
constexpr std::array<Word<TransportType>, 4> kTransports{{{TransportType::streamable_http, "streamable-http"},
                                                          {TransportType::sse, "sse"},
                                                          {TransportType::stdio, "stdio"},
                                                          {TransportType::kubernetes, "kubernetes"}}};
constexpr std::array<Word<Statefulness>, 2> kStatefulness{
    {{Statefulness::stateless, "stateless"}, {Statefulness::stateful, "stateful"}}};
constexpr std::array<Word<Isolation>, 4> kIsolations{{{Isolation::shared, "shared"},
                                                      {Isolation::per_role, "per_role"},
                                                      {Isolation::per_group, "per_group"},
                                                      {Isolation::per_user, "per_user"}}};
constexpr std::array<Word<AuthType>, 3> kAuthTypes{
    {{AuthType::none, "none"}, {AuthType::bearer, "bearer"}, {AuthType::header, "header"}}};
constexpr std::array<Word<PrefixMode>, 2> kPrefixModes{
    {{PrefixMode::automatic, "auto"}, {PrefixMode::always, "always"}}};
constexpr std::array<Word<EraSetting>, 3> kEras{
    {{EraSetting::automatic, "auto"}, {EraSetting::legacy, "legacy"}, {EraSetting::modern, "modern"}}};
constexpr std::array<Word<ResourceType>, 4> kResourceTypes{{{ResourceType::all, "all"},
                                                            {ResourceType::tool, "tool"},
                                                            {ResourceType::resource, "resource"},
                                                            {ResourceType::prompt, "prompt"}}};
constexpr std::array<Word<Effect>, 2> kEffects{{{Effect::allow, "allow"}, {Effect::deny, "deny"}}};
constexpr std::array<Word<SubjectType>, 4> kSubjectTypes{{{SubjectType::user, "user"},
                                                          {SubjectType::role, "role"},
                                                          {SubjectType::group, "group"},
                                                          {SubjectType::everyone, "everyone"}}};
constexpr std::array<Word<Scope>, 4> kScopes{
    {{Scope::user, "user"}, {Scope::group, "group"}, {Scope::role, "role"}, {Scope::everyone, "default"}}};

template <class Enum, std::size_t N>
std::string_view word_of(const std::array<Word<Enum>, N>& words, Enum value) noexcept {
  for (const auto& [candidate, word] : words)
    if (candidate == value) return word;
  return {};
}

template <class Enum, std::size_t N>
std::optional<Enum> value_of(const std::array<Word<Enum>, N>& words, std::string_view text) noexcept {
  for (const auto& [value, word] : words)
    if (word == text) return value;
  return std::nullopt;
}

}  // namespace

#define MCPGW_ENUM_TEXT(Enum, words)                                              \
  std::string_view to_text(Enum value) noexcept { return word_of(words, value); } \
  template <>                                                                     \
  std::optional<Enum> parse_text<Enum>(std::string_view text) noexcept {          \
    return value_of(words, text);                                                 \
  }

MCPGW_ENUM_TEXT(TokenKind, kTokenKinds)
MCPGW_ENUM_TEXT(TransportType, kTransports)
MCPGW_ENUM_TEXT(Statefulness, kStatefulness)
MCPGW_ENUM_TEXT(Isolation, kIsolations)
MCPGW_ENUM_TEXT(PrefixMode, kPrefixModes)
MCPGW_ENUM_TEXT(EraSetting, kEras)
MCPGW_ENUM_TEXT(ResourceType, kResourceTypes)
MCPGW_ENUM_TEXT(Effect, kEffects)
MCPGW_ENUM_TEXT(SubjectType, kSubjectTypes)
MCPGW_ENUM_TEXT(Scope, kScopes)
#undef MCPGW_ENUM_TEXT

std::string_view to_text(AuthType value) noexcept { return word_of(kAuthTypes, value); }
template <>
std::optional<AuthType> parse_text<AuthType>(std::string_view text) noexcept {
  return text.empty() ? AuthType::none : value_of(kAuthTypes, text);
}

}  // namespace mcpgw::detail
