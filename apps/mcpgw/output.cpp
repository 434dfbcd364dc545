#include "output.hpp"

#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>

namespace mcpgw::app {

namespace {

constexpr std::size_t kMaxSecret = 16384;

volatile std::sig_atomic_t interrupted = 0;
void note_signal(int signal) { interrupted = signal; }

/// Silences the terminal, and puts it back as it was, also when the person gives up with Ctrl-C. Signals are
/// held back but for the time of wait(): one that comes just before it is not lost.
class NoEcho {
 public:
  NoEcho() : active_(::tcgetattr(STDIN_FILENO, &before_) == 0) {
    interrupted = 0;
    sigset_t held;
    ::sigemptyset(&held);
    for (const int signal : kSignals) ::sigaddset(&held, signal);
    ::sigprocmask(SIG_BLOCK, &held, &mask_);
    struct sigaction noted {};
    noted.sa_handler = note_signal;
    for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &noted, &old_[i]);
    auto silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    if (active_) ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
  }
  ~NoEcho() {
    if (active_) ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
    for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &old_[i], nullptr);
    ::sigprocmask(SIG_SETMASK, &mask_, nullptr);
    if (interrupted != 0) ::raise(interrupted);
  }
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;

  /// Until there is something to read; false when the person gave up.
  bool wait() const {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    while (interrupted == 0)
      if (::ppoll(&input, 1, nullptr, &mask_) > 0) return true;
    return false;
  }

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
  struct sigaction old_[std::size(kSignals)];
  sigset_t mask_{};
  termios before_{};
  bool active_;
};

/// Byte by byte: what follows the line stays for whoever reads next.
Result<std::string> read_line(const std::string& what, const NoEcho* terminal = nullptr) {
  std::string line;
  for (char c; line.size() <= kMaxSecret;) {
    if (terminal != nullptr && !terminal->wait()) {
      line.clear();
      break;
    }
    const auto size = ::read(STDIN_FILENO, &c, 1);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0 || c == '\n') break;
    line += c;
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  if (line.empty())
    return Error{ErrorCode::invalid_argument, "missing_secret", what + " is expected on standard input"};
  if (line.size() > kMaxSecret) return Error{ErrorCode::invalid_argument, "too_long", what + " is too long"};
  return line;
}

/// The question comes when the terminal is silent: an answer given at once is neither shown nor thrown away.
Result<std::string> ask(const std::string& prompt) {
  const NoEcho quiet;
  std::fprintf(stderr, "%s: ", shown(prompt).c_str());
  auto line = read_line(prompt, &quiet);
  std::fputc('\n', stderr);
  return line;
}

std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

Result<std::string> read_secret(const std::string& prompt, bool repeat) {
  if (!::isatty(STDIN_FILENO)) return read_line(prompt);
  auto first = ask(prompt);
  if (!first || !repeat) return first;
  const auto second = ask("Again");
  if (!second) return second.error();
  if (*first != *second) return Error{ErrorCode::invalid_argument, "mismatch", "The two are not the same"};
  return first;
}

std::string shown(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F, which some terminals obey as well, are two bytes.
    const bool c1 = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (c1) ++i;
    out += c1 || byte < ' ' || byte == 0x7f ? '?' : text[i];
  }
  return out;
}

void print_line(const std::string& text) { std::puts(shown(text).c_str()); }

void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> all{header};
  for (const auto& row : rows) {
    all.emplace_back();
    for (const auto& one : row) all.back().push_back(shown(one));
  }
  std::vector<std::size_t> width(header.size(), 0);
  for (const auto& row : all)
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], width_of(row[i]));
  for (const auto& row : all) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(width[i] - width_of(row[i]) + 2, ' ');
    }
    std::puts(line.c_str());
  }
}

void print_json(const Json& value) {
  std::puts(value.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

void print_json_line(const Json& value) {
  std::puts(value.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
  std::fflush(stdout);
}

std::string cell(const Json& object, const char* member) {
  const auto it = object.find(member);
  if (it == object.end() || it->is_null()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (it->is_boolean()) return it->get<bool>() ? "yes" : "no";
  if (!it->is_array()) return it->dump(-1, ' ', false, Json::error_handler_t::replace);
  std::vector<std::string> parts;
  for (const auto& part : *it) parts.push_back(part.is_string() ? part.get<std::string>() : part.dump());
  return join(parts);
}

std::string time_text(std::chrono::system_clock::time_point time) {
  const auto since = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch());
  const auto whole = std::chrono::floor<std::chrono::seconds>(since);
  const std::time_t seconds = whole.count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<int>((since - whole).count()));
  return text;
}

std::string join(const std::vector<std::string>& parts, const char* separator) {
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : separator) + part;
  return out;
}

}  // namespace mcpgw::app
