#include "admin/json_body.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

Error invalid(const std::string& field, const std::string& message) {
  return {ErrorCode::invalid_argument, "invalid_request", message, field};
}

/// "a, b or c"
std::string listed(const std::vector<const char*>& words) {
  std::string out;
  std::size_t left = words.size();
  for (const char* word : words) {
    --left;
    if (*word == '\0') continue;
    if (!out.empty()) out += left == 0 ? " or " : ", ";
    out += word;
  }
  return out;
}

Status check_text(const Field& field, const std::string& path, const std::string& top, const Json& value) {
  if (!value.is_string()) return invalid(top, path + " must be a string");
  // What has rules of its own has errors of its own, "invalid_value" and the like.
  if (!field.is_any_text && has_control(value.get_ref<const std::string&>()))
    return invalid(top, path + " must not contain control characters");
  return {};
}

Status check_integer(const Field& field, const std::string& path, const std::string& top, const Json& value) {
  if (!value.is_number_integer()) return invalid(top, path + " must be an integer");
  // Beyond 64 bits the value would wrap into the range.
  const bool huge = value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX;
  if (huge || value.get<std::int64_t>() < field.low || value.get<std::int64_t>() > field.high)
    return invalid(
        top, path + " must be between " + std::to_string(field.low) + " and " + std::to_string(field.high));
  return {};
}

Status check_members(const Schema& schema, const Json& body, const std::string& prefix,
                     const std::string& parent);

Status check_value(const Field& field, const std::string& path, const std::string& top, const Json& value) {
  switch (field.type) {
    case Field::Type::text:
      return check_text(field, path, top, value);
    case Field::Type::word: {
      const bool known = value.is_string() && std::any_of(field.words.begin(), field.words.end(),
                                                          [&](const char* word) { return value == word; });
      return known ? Status() : invalid(top, path + " must be " + listed(field.words));
    }
    case Field::Type::boolean:
      return value.is_boolean() ? Status() : invalid(top, path + " must be true or false");
    case Field::Type::integer:
      return check_integer(field, path, top, value);
    case Field::Type::texts:
      if (!value.is_array()) return invalid(top, path + " must be an array of strings");
      for (const Json& element : value)
        if (auto status = check_text(field, "Each of " + path, top, element); !status) return status;
      return {};
    case Field::Type::object:
      if (!value.is_object()) return invalid(top, path + " must be an object");
      return check_members(*field.members, value, path + ".", top);
    case Field::Type::objects:
      if (!value.is_array()) return invalid(top, path + " must be an array of objects");
      for (const Json& element : value) {
        if (!element.is_object()) return invalid(top, path + " must be an array of objects");
        if (auto status = check_members(*field.members, element, path + "[].", top); !status) return status;
      }
      return {};
    case Field::Type::text_map:
      if (!value.is_object()) return invalid(top, path + " must be an object");
      for (const Json& element : value)
        if (auto status = check_text(field, "Each value of " + path, top, element); !status) return status;
      return {};
  }
  return {};
}

/// `parent` is the member of the body that is named as the one at fault; empty: the member itself.
Status check_members(const Schema& schema, const Json& body, const std::string& prefix,
                     const std::string& parent) {
  for (const Field& field : schema) {
    const std::string path = prefix + field.name;
    const std::string top = parent.empty() ? field.name : parent;
    const auto it = body.find(field.name);
    if (it == body.end() || it->is_null()) {
      if (field.is_required) return invalid(top, path + " is required");
      continue;
    }
    if (auto status = check_value(field, path, top, *it); !status) return status;
  }
  return {};
}

void collect_texts(const Json& value, std::vector<std::string>& out) {
  if (value.is_string()) {
    out.push_back(value.get<std::string>());
  } else if (value.is_structured()) {
    for (const Json& element : value) collect_texts(element, out);
  }
}

/// User and password that a URL carries, though no URL of ours may.
void collect_user_info(const Json& value, std::vector<std::string>& out) {
  if (value.is_array()) {
    for (const Json& element : value) collect_user_info(element, out);
    return;
  }
  if (!value.is_string()) return;
  const auto& text = value.get_ref<const std::string&>();
  for (std::size_t at = 0; (at = text.find("://", at)) != std::string::npos;) {
    at += 3;
    const auto end = std::min(text.find_first_of("/?# \t\r\n", at), text.size());
    const auto user_info = text.rfind('@', end);
    if (user_info == std::string::npos || user_info < at || user_info >= end || user_info == at) continue;
    out.push_back(text.substr(at, user_info - at));
  }
}

void collect(const Schema& schema, const Json& body, BodySecrets& out) {
  if (!body.is_object()) return;
  for (const auto& [name, value] : body.items()) {
    const auto field =
        std::find_if(schema.begin(), schema.end(),
                     [&, key = std::string_view(name)](const Field& one) { return key == one.name; });
    if (field == schema.end()) {
      out.names.push_back(name);  // nobody can tell what it holds
    } else if (field->is_secret) {
      // Of a map the keys may be told.
      if (field->type == Field::Type::text_map && value.is_object())
        for (const auto& [key, one] : value.items()) out.names.push_back(key);
      else
        out.names.push_back(name);
      collect_texts(value, out.texts);
    } else if (field->members != nullptr) {
      const bool fits = field->type == Field::Type::object ? value.is_object() : value.is_array();
      if (!fits && !value.is_null()) out.names.push_back(name);
      if (fits && value.is_object()) collect(*field->members, value, out);
      if (fits && value.is_array())
        for (const Json& element : value) collect(*field->members, element, out);
    } else if (value.is_structured() && field->type != Field::Type::texts) {
      out.names.push_back(name);
    } else {
      collect_user_info(value, out.texts);
    }
  }
}

}  // namespace

Field Field::required() const {
  Field out = *this;
  out.is_required = true;
  return out;
}
Field Field::secret() const {
  Field out = *this;
  out.is_secret = true;
  return out;
}
Field Field::any_text() const {
  Field out = *this;
  out.is_any_text = true;
  return out;
}

namespace field {

Field text(const char* name) { return {name, Field::Type::text}; }
Field word(const char* name, std::vector<const char*> words) {
  Field out{name, Field::Type::word};
  out.words = std::move(words);
  return out;
}
Field flag(const char* name) { return {name, Field::Type::boolean}; }
Field integer(const char* name, std::int64_t low, std::int64_t high) {
  Field out{name, Field::Type::integer};
  out.low = low;
  out.high = high;
  return out;
}
Field texts(const char* name) { return {name, Field::Type::texts}; }
Field object(const char* name, const Schema& members) {
  Field out{name, Field::Type::object};
  out.members = &members;
  return out;
}
Field objects(const char* name, const Schema& members) {
  Field out{name, Field::Type::objects};
  out.members = &members;
  return out;
}
Field text_map(const char* name) { return {name, Field::Type::text_map}; }

}  // namespace field

Schema with_required(Schema schema, const std::vector<std::string_view>& names) {
  for (Field& field : schema)
    if (std::find(names.begin(), names.end(), field.name) != names.end()) field.is_required = true;
  return schema;
}

Status check_body(const Schema& schema, const Json& body) { return check_members(schema, body, "", ""); }

BodySecrets secrets_of(const Schema& schema, const Json& body) {
  BodySecrets out;
  collect(schema, body, out);
  return out;
}

}  // namespace mcpgw::detail
