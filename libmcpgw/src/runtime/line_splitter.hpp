#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace mcpgw::detail {

/// Cuts a stream into lines of at most `max` bytes. Longer ones are skipped; only their ends are kept, so
/// that whoever waits for one can be told.
class LineSplitter {
 public:
  explicit LineSplitter(std::size_t max) : max_(max) {}

  /// Calls on_line(std::string) for each line that ended and is not empty, on_oversize(head, tail, bytes) for
  /// each that was too long, when it ends.
  template <class OnLine, class OnOversize>
  void feed(std::string_view bytes, OnLine&& on_line, OnOversize&& on_oversize) {
    while (!bytes.empty()) {
      const void* found = std::memchr(bytes.data(), '\n', bytes.size());
      const std::size_t end = found != nullptr
                                  ? static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data())
                                  : bytes.size();
      take(bytes.substr(0, end));
      if (found == nullptr) return;
      bytes.remove_prefix(end + 1);
      end_line(on_line, on_oversize);
    }
  }

  /// The stream has ended: what is left counts as a line.
  template <class OnLine, class OnOversize>
  void finish(OnLine&& on_line, OnOversize&& on_oversize) {
    end_line(on_line, on_oversize);
  }

 private:
  void take(std::string_view part) {
    if (skipped_ == 0 && part.size() <= max_ - line_.size()) {
      line_.append(part);
      return;
    }
    if (skipped_ == 0) {
      head_ = line_.substr(0, kKept);
      tail_ = line_.size() > kKept ? line_.substr(line_.size() - kKept) : line_;
    }
    skipped_ += line_.size() + part.size();
    std::string().swap(line_);
    if (head_.size() < kKept) head_.append(part.substr(0, kKept - head_.size()));
    tail_.append(part.size() > kKept ? part.substr(part.size() - kKept) : part);
    if (tail_.size() > kKept) tail_.erase(0, tail_.size() - kKept);
  }

  template <class OnLine, class OnOversize>
  void end_line(OnLine& on_line, OnOversize& on_oversize) {
    if (skipped_ > 0) {
      on_oversize(std::move(head_), std::move(tail_), std::exchange(skipped_, 0));
      head_.clear();
      tail_.clear();
      return;
    }
    std::string line = std::move(line_);
    line_.clear();
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) on_line(std::move(line));
  }

  static constexpr std::size_t kKept = 512;

  const std::size_t max_;
  std::string line_;
  std::size_t skipped_ = 0;  // bytes of a line that is too long
  std::string head_, tail_;  // its first and last bytes
};

}  // namespace mcpgw::detail
