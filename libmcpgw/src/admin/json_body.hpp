// Bodies of requests, declared: which members a route knows, of what form, and which of them are secret.
// One helper checks them all, so that every error names its member and no secret is recorded when a request
// is refused before its handler has seen it.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "json/json.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw::detail {

/// A known member of a body. Unknown members are ignored.
struct Field {
  enum class Type { text, word, boolean, integer, texts, object, objects, text_map };

  const char* name;
  Type type;
  bool is_required = false;
  bool is_secret = false;          ///< never in the audit log, whatever became of the request
  bool is_any_text = false;        ///< control characters are judged later, by rules of this member's own
  std::vector<const char*> words;  ///< of Type::word
  std::int64_t low = std::numeric_limits<std::int64_t>::min();
  std::int64_t high = std::numeric_limits<std::int64_t>::max();
  const std::vector<Field>* members = nullptr;  ///< of Type::object and objects

  Field required() const;
  Field secret() const;
  Field any_text() const;
};
using Schema = std::vector<Field>;

namespace field {
Field text(const char* name);
Field word(const char* name, std::vector<const char*> words);  ///< one of these
Field flag(const char* name);
Field integer(const char* name, std::int64_t low, std::int64_t high);
Field texts(const char* name);  ///< an array of strings
Field object(const char* name, const Schema& members);
Field objects(const char* name, const Schema& members);  ///< an array of objects
Field text_map(const char* name);                        ///< an object whose values are strings
}  // namespace field

/// `schema` with the named members required: a creation needs what a change may leave out.
Schema with_required(Schema schema, const std::vector<std::string_view>& names);

/// invalid_argument/"invalid_request" with the member's name as field.
Status check_body(const Schema& schema, const Json& body);

/// What of `body` must not be kept: names of members whose values are secret or which the schema does not
/// know, and the texts of the secrets. `body` need not fit the schema.
struct BodySecrets {
  std::vector<std::string> names;
  std::vector<std::string> texts;
};
BodySecrets secrets_of(const Schema& schema, const Json& body);

}  // namespace mcpgw::detail
