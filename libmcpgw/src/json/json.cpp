#include "json/json.hpp"

#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

template <class T>
std::optional<T> parse(std::string_view text, std::size_t max_depth) {
  if (raw::check(text, max_depth) != raw::Fault::none) return std::nullopt;
  T out = T::parse(text, nullptr, false);
  if (out.is_discarded()) return std::nullopt;  // numbers beyond a double
  return out;
}

}  // namespace

std::optional<Json> parse_json(std::string_view text, std::size_t max_depth) {
  return parse<Json>(text, max_depth);
}
std::optional<OrderedJson> parse_ordered_json(std::string_view text, std::size_t max_depth) {
  return parse<OrderedJson>(text, max_depth);
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}
std::string dump_json(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace mcpgw::detail
