// Names: how items of targets are called towards clients (docs/protocol.md, "Names"), and lists of items as
// the gateway keeps them. Pure functions and plain data.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mcpgw/model.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::detail {

enum class ListKind { tools, resources, templates, prompts };
constexpr std::size_t kListKinds = 4;

/// "tools/list", ...
std::string_view list_method(ListKind kind);
/// The array's member in the answer: "tools", "resources", "resourceTemplates", "prompts".
std::string_view list_member(ListKind kind);
/// The member of an item that identifies it: "name", "uri", "uriTemplate".
std::string_view item_key(ListKind kind);
/// The server capability that offers it: "tools", "resources", "prompts".
std::string_view list_capability(ListKind kind);
/// The notification that says that one has changed.
std::string list_changed(ListKind kind);
ResourceType policy_type(ListKind kind);

struct Item {
  std::string name;  ///< original name, URI or URI template
  std::string json;  ///< the item as the server sent it
};

/// One target's items of one kind, all pages, immutable.
struct Listing {
  std::vector<Item> items;
  std::unordered_map<std::string, std::size_t> by_name;      ///< original -> index
  std::unordered_map<std::string, std::size_t> by_exported;  ///< with prefix -> index; tools and prompts only
  SteadyTime fetched;
  bool announced = false;  ///< the server says when the list has changed
  bool endless = false;  ///< the server always had a next page: what came until the bound
};

/// Adds the items of one answer; a name that is there already is skipped. Returns how many were skipped.
std::size_t add_items(Listing& listing, ListKind kind, std::string_view slug, std::string_view result);

/// `<slug>_<name>` when that is a valid tool name, else a shortened form with a digest.
std::string export_name(std::string_view slug, std::string_view name);

/// "mcpgw+<slug>:<uri>".
std::string export_uri(std::string_view slug, std::string_view uri);
struct ImportedUri {
  std::string slug;
  std::string uri;
};
/// nullopt when `uri` does not carry a prefix of ours.
std::optional<ImportedUri> import_uri(std::string_view uri);

/// An item of a list with its exported name or URI; everything else keeps its bytes.
std::string export_item(ListKind kind, std::string_view slug, const Item& item);

/// The URIs of resources in a result become exported ones: contents[].uri of resources/read, embedded
/// resources and resource links of tools/call and prompts/get.
std::string export_result(std::string_view method, std::string_view slug, std::string_view result);

}  // namespace mcpgw::detail
