// Events of one stream towards a client, numbered and kept for a while, so that a client whose connection
// broke gets what it missed (MCP 2025-11-25, basic/transports, "Resumability and Redelivery").
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

namespace mcpgw::detail {

/// "<epoch>-<stream>-<number>". The epoch tells apart what two processes numbered for one session; stream 0
/// is the session's own, the others belong to one POST each.
struct EventId {
  std::string epoch;
  std::uint64_t stream = 0;
  std::uint64_t number = 0;
  std::string text() const;
  static std::optional<EventId> read(std::string_view text);
};

/// Not synchronised: its owner's lock guards it.
class EventLog {
 public:
  EventLog(std::string epoch, std::uint64_t stream) : epoch_(std::move(epoch)), stream_(stream) {}

  /// The event that carries this message, as it is sent. One that is too large to be kept is replaced by
  /// `instead` (a message, too) for those who ask for it again.
  std::string add(const std::string& message, const std::string& instead = {});
  /// An event without data: from here on the client can resume. With the time to wait before it does.
  std::string prime() const;
  /// Everything kept that came after `number`.
  std::string after(std::uint64_t number) const;

  std::uint64_t last() const noexcept { return last_; }
  std::size_t bytes() const noexcept { return bytes_; }
  void clear();

  /// Bounds of what is kept; the oldest goes first.
  static constexpr std::size_t kMaxEvents = 256;
  static constexpr std::size_t kMaxBytes = 1024 * 1024;

 private:
  struct Event {
    std::uint64_t number;
    std::string text;
  };
  std::string id(std::uint64_t number) const;

  std::string epoch_;
  std::uint64_t stream_;
  std::deque<Event> events_;
  std::size_t bytes_ = 0;
  std::uint64_t last_ = 0;
};

}  // namespace mcpgw::detail
