// JSON as text: finds members and elements by scanning, and yields them as views of the original bytes, so
// that what the gateway does not understand passes on unchanged. No tree is built.
//
// check() first, once, on text from outside; the other functions expect text that passed it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mcpgw::detail::raw {

enum class Fault { none, syntax, utf8, depth, duplicate };
const char* to_string(Fault fault) noexcept;

/// Whether `text` is exactly one JSON value (white space around it allowed), in valid UTF-8, nested at most
/// `max_depth`, without an object that has two members of the same name (escapes resolved).
Fault check(std::string_view text, std::size_t max_depth);

enum class Type { null, boolean, number, string, array, object };
/// `value` has no surrounding white space and is not empty.
Type type_of(std::string_view value) noexcept;

struct Member {
  std::string_view key;                     ///< between the quotes, escapes not resolved
  std::string_view value;                   ///< without surrounding white space
  bool named(std::string_view name) const;  ///< compares the resolved key
};

/// Members of an object in order. `object` may have white space around it.
std::vector<Member> members(std::string_view object);
/// The value of one member; empty view when absent or `object` is no object.
std::string_view find(std::string_view object, std::string_view name);
/// find() of several members in one pass; `values` come empty.
void find_each(std::string_view object, const std::string_view* names, std::string_view* values,
               std::size_t count);
template <std::size_t N>
std::array<std::string_view, N> find_each(std::string_view object,
                                          const std::array<std::string_view, N>& names) {
  std::array<std::string_view, N> out{};
  find_each(object, names.data(), out.data(), N);
  return out;
}
/// find() along a path.
std::string_view find(std::string_view object, std::string_view name, std::string_view then);
/// Elements of an array in order.
std::vector<std::string_view> elements(std::string_view array);

/// The text of a string value, escapes resolved; nullopt when it is no string. Lone surrogates become U+FFFD.
std::optional<std::string> string_value(std::string_view value);
/// An integer without fraction or exponent that fits.
std::optional<std::int64_t> int_value(std::string_view value);
std::optional<double> number_value(std::string_view value);

/// `text` as a JSON string literal with quotes. Invalid UTF-8 becomes U+FFFD.
std::string quote(std::string_view text);
void append_quoted(std::string& out, std::string_view text);
/// Adds a member with a text to an object that is being written and has no end yet; an empty `object` is
/// begun. `name` needs no escapes.
void put(std::string& object, std::string_view name, std::string_view text);
/// The same, unless the text is empty.
void put_if(std::string& object, std::string_view name, std::string_view text);

/// `object` with the member `name` set to `value` (JSON text): replaced in place, or appended. Everything
/// else keeps its bytes.
std::string with_member(std::string_view object, std::string_view name, std::string_view value);
/// `object` without that member.
std::string without_member(std::string_view object, std::string_view name);

}  // namespace mcpgw::detail::raw
