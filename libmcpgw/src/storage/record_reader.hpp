// Reads members of a record's JSON object without exceptions. Private to records*.cpp.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "json/json.hpp"
#include "storage/model_text.hpp"

namespace mcpgw::detail {

/// Remembers whether anything was missing or of the wrong type.
class RecordReader {
 public:
  explicit RecordReader(const Json& object) : object_(object), ok_(object.is_object()) {}

  bool ok() const noexcept { return ok_; }

  const Json* find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  std::string text(const char* name) {
    const Json* value = find(name);
    if (value == nullptr || !value->is_string()) return fail<std::string>();
    return value->get_ref<const std::string&>();
  }
  /// Absent is empty.
  std::string optional_text(const char* name) { return find(name) == nullptr ? std::string() : text(name); }

  bool boolean(const char* name) {
    const Json* value = find(name);
    if (value == nullptr || !value->is_boolean()) return fail<bool>();
    return value->get<bool>();
  }
  std::int64_t integer(const char* name, std::int64_t min = std::numeric_limits<std::int64_t>::min(),
                       std::int64_t max = std::numeric_limits<std::int64_t>::max()) {
    const Json* value = find(name);
    if (value == nullptr || !value->is_number_integer()) return fail<std::int64_t>();
    if (value->is_number_unsigned() &&
        value->get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return fail<std::int64_t>();
    const auto number = value->get<std::int64_t>();
    return number < min || number > max ? fail<std::int64_t>() : number;
  }
  Time time(const char* name) {
    const auto value = parse_time(text(name));
    return value ? *value : fail<Time>();
  }
  std::optional<Time> optional_time(const char* name) {
    if (find(name) == nullptr) return std::nullopt;
    return time(name);
  }
  std::vector<std::string> texts(const char* name) {
    std::vector<std::string> out;
    const Json* value = find(name);
    if (value == nullptr || !value->is_array()) return fail<std::vector<std::string>>();
    for (const Json& element : *value) {
      if (!element.is_string()) return fail<std::vector<std::string>>();
      out.push_back(element.get_ref<const std::string&>());
    }
    return out;
  }
  template <class Enum>
  Enum word(const char* name) {
    const auto value = parse_text<Enum>(text(name));
    return value ? *value : fail<Enum>();
  }
  /// An unknown word becomes `strictest` instead of a failure; a missing one is still a failure.
  template <class Enum>
  Enum word_or(const char* name, Enum strictest) {
    const auto value = parse_text<Enum>(text(name));
    return value ? *value : strictest;
  }
  template <class T>
  T fail() {
    ok_ = false;
    return T{};
  }

 private:
  const Json& object_;
  bool ok_;
};

}  // namespace mcpgw::detail
