// Enumerations of the model as the words of the command line and of JSON output.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "mcpgw/model.hpp"

namespace mcpgw::app {

template <class T>
using Words = std::vector<std::pair<std::string, T>>;

inline const Words<TransportType> kTransports{{"streamable-http", TransportType::streamable_http},
                                              {"sse", TransportType::sse},
                                              {"stdio", TransportType::stdio},
                                              {"kubernetes", TransportType::kubernetes}};
inline const Words<Statefulness> kStatefulness{{"stateless", Statefulness::stateless},
                                               {"stateful", Statefulness::stateful}};
inline const Words<Isolation> kIsolations{{"shared", Isolation::shared},
                                          {"per_role", Isolation::per_role},
                                          {"per_group", Isolation::per_group},
                                          {"per_user", Isolation::per_user}};
inline const Words<AuthType> kAuthTypes{
    {"none", AuthType::none}, {"bearer", AuthType::bearer}, {"header", AuthType::header}};
inline const Words<PrefixMode> kPrefixModes{{"auto", PrefixMode::automatic}, {"always", PrefixMode::always}};
inline const Words<ResourceType> kResourceTypes{{"all", ResourceType::all},
                                                {"tool", ResourceType::tool},
                                                {"resource", ResourceType::resource},
                                                {"prompt", ResourceType::prompt}};
inline const Words<Effect> kEffects{{"allow", Effect::allow}, {"deny", Effect::deny}};
inline const Words<SubjectType> kSubjectTypes{{"user", SubjectType::user},
                                              {"role", SubjectType::role},
                                              {"group", SubjectType::group},
                                              {"everyone", SubjectType::everyone}};

template <class T>
std::string word(const Words<T>& words, T value) {
  for (const auto& [text, meaning] : words)
    if (meaning == value) return text;
  return "unknown";
}

template <class T>
CLI::Option* add_choice(CLI::App& app, const char* name, T& value, const Words<T>& words, std::string help) {
  std::vector<std::string> texts;
  for (const auto& entry : words) texts.push_back(entry.first);
  return app
      .add_option_function<std::string>(
          name,
          [&value, &words](const std::string& text) {
            for (const auto& [known, meaning] : words)
              if (known == text) value = meaning;
          },
          std::move(help))
      ->check(CLI::IsMember(std::move(texts)));
}

}  // namespace mcpgw::app
