#include "runtime/process_info.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <string_view>

#include "runtime/unique_fd.hpp"

namespace mcpgw::detail {
namespace {

std::string read_small_file(const char* path) {
  const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return {};
  char buffer[2048];
  const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
  return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
}

template <class T>
bool number(std::string_view text, T& out) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

}  // namespace

std::optional<ProcessInfo> process_info(pid_t pid) {
  const std::string text = read_small_file(("/proc/" + std::to_string(pid) + "/stat").c_str());
  // "pid (name) state ppid pgrp session ...": the name may hold anything, so from its last parenthesis on.
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::string_view left = std::string_view(text).substr(name_end + 1);
  ProcessInfo out;
  out.pid = pid;
  for (int field = 3; field <= 22; ++field) {
    const std::size_t begin = left.find_first_not_of(' ');
    if (begin == std::string_view::npos) return std::nullopt;
    left.remove_prefix(begin);
    const std::size_t end = std::min(left.find_first_of(" \n"), left.size());
    const std::string_view word = left.substr(0, end);
    left.remove_prefix(end);
    if (field == 3) out.zombie = word == "Z" || word == "X";
    if (field == 5 && !number(word, out.group)) return std::nullopt;
    if (field == 6 && !number(word, out.session)) return std::nullopt;
    if (field == 22 && !number(word, out.started)) return std::nullopt;
  }
  return out;
}

std::vector<ProcessInfo> process_group(pid_t group) {
  std::vector<ProcessInfo> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc"), ::closedir);
  if (!directory) return out;
  while (const dirent* entry = ::readdir(directory.get())) {
    pid_t pid = 0;
    if (!number(std::string_view(entry->d_name), pid)) continue;
    const auto info = process_info(pid);
    if (info && info->group == group && !info->zombie) out.push_back(*info);
  }
  return out;
}

std::string process_space() {
  std::string boot = read_small_file("/proc/sys/kernel/random/boot_id");
  boot.resize(std::min(boot.find('\n'), boot.size()));
  char space[64];
  const ssize_t n = ::readlink("/proc/self/ns/pid", space, sizeof space);
  if (boot.empty() || n <= 0) return {};
  return boot + " " + std::string(space, static_cast<std::size_t>(n));
}

}  // namespace mcpgw::detail
