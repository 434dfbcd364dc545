// An MCP server that is a shell script, with every fault that a program can have.
#pragma once

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>

#include "runtime/process_info.hpp"
#include "support.hpp"

namespace mcpgw::testing {

inline constexpr const char* kServer = R"sh(
reply() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
text() { reply "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]}"; }
tools='{"name":"pid"}'
for name in exit killed hang deaf slow held garbage half huge flood lines shout; do tools="$tools,{\"name\":\"$name\"}"; done
serve() {
  while read -r line; do
    rest=${line#*'"id":'}
    [ "$rest" = "$line" ] && continue
    id=${rest%%[,\}]*}
    case $line in
      *'"initialize"'*) reply '"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
      *'"tools/list"'*) reply "\"result\":{\"tools\":[$tools]}" ;;
      *'"name":"pid"'*) text $$ ;;
      *'"name":"exit"'*) echo 'these are my last words' >&2; exit 3 ;;
      *'"name":"killed"'*) kill -9 $$ ;;
      *'"name":"hang"'*) ;;
      *'"name":"deaf"'*) sleep 600 ;;
      *'"name":"slow"'*) sleep ${PAUSE:-0.7}; text slow ;;
      *'"name":"held"'*) : >"$HOLD.begun"; until [ -e "$HOLD.go" ]; do sleep 0.05; done; text held ;;
      *'"name":"garbage"'*) echo '<html>'; echo '{"half":'; text garbage ;;
      *'"name":"half"'*) printf '{"jsonrpc":"2.0","id":%s,"res' "$id"; exit 0 ;;
      *'"name":"huge"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"' "$id"
        head -c 600000 /dev/zero | tr '\0' x; printf '"}]}}\n' ;;
      *'"name":"flood"'*) head -c 60000000 /dev/zero | tr '\0' x; echo; text flood ;;
      *'"name":"lines"'*) yes 'this line is no message, and there are many of it' | head -n 20000; text lines ;;
      *'"name":"shout"'*) yes 'a line for the log, and there are many of it' | head -n 20000 >&2; text shout ;;
      *) reply '"error":{"code":-32601,"message":"no"}' ;;
    esac
  done
}
)sh";

/// A target whose program is the script and then `more`.
inline std::function<void(Target&)> shell_server(const std::string& more = "serve") {
  static const std::string file = [] {
    std::string path = TlsFront::files().file("server.sh");
    std::ofstream(path) << kServer;
    return path;
  }();
  return [more](Target& target) {
    target.command = "/bin/sh";
    target.args = {"-c", ". " + file + "; " + more};
  };
}

/// Children of this process.
inline std::vector<detail::ProcessInfo> children(bool zombies) {
  std::vector<detail::ProcessInfo> out;
  DIR* directory = ::opendir("/proc");
  REQUIRE(directory != nullptr);
  while (const dirent* entry = ::readdir(directory)) {
    const int pid = std::atoi(entry->d_name);
    if (pid <= 0) continue;
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto end = text.rfind(") ");
    if (end == std::string::npos || std::atoi(text.c_str() + end + 4) != ::getpid()) continue;
    const auto info = detail::process_info(pid);
    if (info && info->zombie == zombies) out.push_back(*info);
  }
  ::closedir(directory);
  return out;
}

inline bool alive(int pid) {
  const auto info = detail::process_info(pid);
  return info && !info->zombie;
}

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  REQUIRE(directory != nullptr);
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

/// Bytes of memory in use.
inline std::size_t resident() {
  std::ifstream file("/proc/self/statm");
  std::size_t size = 0, pages = 0;
  file >> size >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace mcpgw::testing
