// Enumerations of the model as the words that stand in records and in the REST API.
#pragma once

#include <optional>
#include <string_view>

#include "mcpgw/model.hpp"

namespace mcpgw::detail {

std::string_view to_text(TokenKind value) noexcept;
std::string_view to_text(TransportType value) noexcept;
std::string_view to_text(Statefulness value) noexcept;
std::string_view to_text(Isolation value) noexcept;
std::string_view to_text(AuthType value) noexcept;
std::string_view to_text(PrefixMode value) noexcept;
std::string_view to_text(EraSetting value) noexcept;
std::string_view to_text(ResourceType value) noexcept;
std::string_view to_text(Effect value) noexcept;
std::string_view to_text(SubjectType value) noexcept;
std::string_view to_text(Scope value) noexcept;  ///< Scope::everyone is "default"

/// parse_text<TransportType>("sse"): nullopt for any other word. Case matters.
template <class Enum>
std::optional<Enum> parse_text(std::string_view text) noexcept;

template <>
std::optional<TokenKind> parse_text<TokenKind>(std::string_view text) noexcept;
template <>
std::optional<TransportType> parse_text<TransportType>(std::string_view text) noexcept;
template <>
std::optional<Statefulness> parse_text<Statefulness>(std::string_view text) noexcept;
template <>
std::optional<Isolation> parse_text<Isolation>(std::string_view text) noexcept;
/// "" is read as none.
template <>
std::optional<AuthType> parse_text<AuthType>(std::string_view text) noexcept;
template <>
std::optional<PrefixMode> parse_text<PrefixMode>(std::string_view text) noexcept;
template <>
std::optional<EraSetting> parse_text<EraSetting>(std::string_view text) noexcept;
template <>
std::optional<ResourceType> parse_text<ResourceType>(std::string_view text) noexcept;
template <>
std::optional<Effect> parse_text<Effect>(std::string_view text) noexcept;
template <>
std::optional<SubjectType> parse_text<SubjectType>(std::string_view text) noexcept;
template <>
std::optional<Scope> parse_text<Scope>(std::string_view text) noexcept;

}  // namespace mcpgw::detail
