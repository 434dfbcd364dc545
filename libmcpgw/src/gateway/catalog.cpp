#include "gateway/catalog.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxName = 64;
constexpr std::size_t kKeptName = 51;
constexpr std::string_view kScheme = "mcpgw+";

bool name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/// A content block with the URI it may carry rewritten.
std::string export_content(std::string_view slug, std::string_view block) {
  if (raw::type_of(block) != raw::Type::object) return std::string(block);
  const auto type = raw::string_value(raw::find(block, "type"));
  if (type == "resource_link") {
    if (const auto uri = raw::string_value(raw::find(block, "uri")))
      return raw::with_member(block, "uri", raw::quote(export_uri(slug, *uri)));
  } else if (type == "resource") {
    const std::string_view resource = raw::find(block, "resource");
    if (const auto uri = raw::string_value(raw::find(resource, "uri")))
      return raw::with_member(block, "resource",
                              raw::with_member(resource, "uri", raw::quote(export_uri(slug, *uri))));
  }
  return std::string(block);
}

template <class F>
std::string map_array(std::string_view array, F&& each) {
  std::string out = "[";
  for (std::string_view element : raw::elements(array)) {
    if (out.size() > 1) out += ',';
    out += each(element);
  }
  out += ']';
  return out;
}

}  // namespace

std::string_view list_method(ListKind kind) {
  switch (kind) {
    case ListKind::tools:
      return "tools/list";
    case ListKind::resources:
      return "resources/list";
    case ListKind::templates:
      return "resources/templates/list";
    case ListKind::prompts:
      return "prompts/list";
  }
  return "";
}

std::string_view list_member(ListKind kind) {
  switch (kind) {
    case ListKind::tools:
      return "tools";
    case ListKind::resources:
      return "resources";
    case ListKind::templates:
      return "resourceTemplates";
    case ListKind::prompts:
      return "prompts";
  }
  return "";
}

std::string_view item_key(ListKind kind) {
  switch (kind) {
    case ListKind::resources:
      return "uri";
    case ListKind::templates:
      return "uriTemplate";
    default:
      return "name";
  }
}

std::string_view list_capability(ListKind kind) {
  switch (kind) {
    case ListKind::tools:
      return "tools";
    case ListKind::prompts:
      return "prompts";
    default:
      return "resources";
  }
}

std::string list_changed(ListKind kind) {
  return "notifications/" + std::string(list_capability(kind)) + "/list_changed";
}

ResourceType policy_type(ListKind kind) {
  switch (kind) {
    case ListKind::tools:
      return ResourceType::tool;
    case ListKind::prompts:
      return ResourceType::prompt;
    default:
      return ResourceType::resource;
  }
}

std::size_t add_items(Listing& listing, ListKind kind, std::string_view slug, std::string_view result) {
  std::size_t skipped = 0;
  const bool named = kind == ListKind::tools || kind == ListKind::prompts;
  for (std::string_view element : raw::elements(raw::find(result, list_member(kind)))) {
    auto name = raw::string_value(raw::find(element, item_key(kind)));
    if (!name || !listing.by_name.emplace(*name, listing.items.size()).second) {
      ++skipped;
      continue;
    }
    if (named) listing.by_exported.emplace(export_name(slug, *name), listing.items.size());
    listing.items.push_back({std::move(*name), std::string(element)});
  }
  return skipped;
}

std::string export_name(std::string_view slug, std::string_view name) {
  std::string out(slug);
  out += '_';
  out += name;
  if (out.size() <= kMaxName && std::all_of(out.begin(), out.end(), name_char)) return out;
  std::string identity(slug);
  identity += '\0';
  identity += name;
  for (char& c : out)
    if (!name_char(c)) c = '_';
  if (out.size() > kKeptName) out.resize(kKeptName);
  out += '_';
  out += to_hex(sha256(identity)).substr(0, 12);
  return out;
}

std::string export_uri(std::string_view slug, std::string_view uri) {
  std::string out(kScheme);
  out += slug;
  out += ':';
  out += uri;
  return out;
}

std::optional<ImportedUri> import_uri(std::string_view uri) {
  if (!starts_with_icase(uri, kScheme)) return std::nullopt;
  const auto colon = uri.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  return ImportedUri{to_lower(uri.substr(kScheme.size(), colon - kScheme.size())),
                     std::string(uri.substr(colon + 1))};
}

std::string export_item(ListKind kind, std::string_view slug, const Item& item) {
  const bool named = kind == ListKind::tools || kind == ListKind::prompts;
  return raw::with_member(item.json, item_key(kind),
                          raw::quote(named ? export_name(slug, item.name) : export_uri(slug, item.name)));
}

std::string export_result(std::string_view method, std::string_view slug, std::string_view result) {
  if (method == "resources/read") {
    const std::string_view contents = raw::find(result, "contents");
    if (contents.empty()) return std::string(result);
    return raw::with_member(result, "contents", map_array(contents, [&](std::string_view element) {
                              const auto uri = raw::string_value(raw::find(element, "uri"));
                              return uri ? raw::with_member(element, "uri",
                                                            raw::quote(export_uri(slug, *uri)))
                                         : std::string(element);
                            }));
  }
  if (method == "tools/call" || method == "tasks/result") {
    const std::string_view content = raw::find(result, "content");
    if (content.empty() || content.find("\"resource") == std::string_view::npos) return std::string(result);
    return raw::with_member(result, "content", map_array(content, [&](std::string_view block) {
                              return export_content(slug, block);
                            }));
  }
  if (method == "prompts/get") {
    const std::string_view messages = raw::find(result, "messages");
    if (messages.empty() || messages.find("\"resource") == std::string_view::npos) return std::string(result);
    return raw::with_member(result, "messages", map_array(messages, [&](std::string_view message) {
                              const std::string_view content = raw::find(message, "content");
                              if (content.empty()) return std::string(message);
                              return raw::with_member(message, "content", export_content(slug, content));
                            }));
  }
  return std::string(result);
}

}  // namespace mcpgw::detail
