#include "runtime/process_user.hpp"

#include <grp.h>
#include <pwd.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxEntry = 1024 * 1024;
constexpr int kMaxGroups = 65536;

Error bad(const std::string& what) { return {ErrorCode::invalid_argument, "invalid_run_as", what}; }

/// The largest value means "unchanged" to the kernel, so it names nobody.
std::optional<unsigned> id_number(std::string_view text) {
  unsigned out = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() || out == ~0U) return std::nullopt;
  return out;
}

/// Calls one of the getXXnam_r family with a buffer that is large enough.
template <class Entry, class Call>
std::optional<Entry> look_up(std::vector<char>& buffer, Call call) {
  for (buffer.resize(4096); buffer.size() <= kMaxEntry; buffer.resize(buffer.size() * 4)) {
    Entry entry{};
    Entry* found = nullptr;
    const int error = call(&entry, buffer.data(), buffer.size(), &found);
    if (error == ERANGE) continue;
    if (error != 0 || found == nullptr) return std::nullopt;
    return entry;
  }
  return std::nullopt;
}

}  // namespace

Result<ProcessUser> find_process_user(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string user = text.substr(0, colon);
  const std::string group = colon == std::string::npos ? std::string() : text.substr(colon + 1);
  if (user.empty() || (colon != std::string::npos && group.empty()))
    return bad("It must be a user, or a user and a group: \"user:group\"");
  ProcessUser out;
  std::vector<char> buffer;
  std::vector<char> group_buffer;
  const auto uid = id_number(user);
  const auto account =
      look_up<passwd>(buffer, [&](passwd* entry, char* data, std::size_t size, passwd** found) {
        return uid ? ::getpwuid_r(*uid, entry, data, size, found)
                   : ::getpwnam_r(user.c_str(), entry, data, size, found);
      });
  if (!account && !uid) return bad("There is no user \"" + user + "\"");
  out.uid = account ? account->pw_uid : *uid;
  if (!group.empty()) {
    const auto gid = id_number(group);
    const auto entry =
        look_up<::group>(group_buffer, [&](::group* e, char* data, std::size_t size, ::group** found) {
          return gid ? ::getgrgid_r(*gid, e, data, size, found)
                     : ::getgrnam_r(group.c_str(), e, data, size, found);
        });
    if (!entry && !gid) return bad("There is no group \"" + group + "\"");
    out.gid = entry ? entry->gr_gid : *gid;
    return out;
  }
  if (!account) return bad("The user " + user + " has no account: name a group, too");
  out.gid = account->pw_gid;
  int count = 64;
  for (;;) {
    out.groups.resize(static_cast<std::size_t>(count));
    if (::getgrouplist(account->pw_name, account->pw_gid, out.groups.data(), &count) >= 0) break;
    if (count > kMaxGroups || static_cast<std::size_t>(count) <= out.groups.size())
      return bad("The groups of the user cannot be read");
  }
  out.groups.resize(static_cast<std::size_t>(count));
  return out;
}

}  // namespace mcpgw::detail
