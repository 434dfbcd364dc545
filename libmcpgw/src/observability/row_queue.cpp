#include "observability/row_queue.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

namespace mcpgw::detail {
namespace {

/// Some hundred rows of the usual size.
constexpr std::size_t kPiece = 64 * 1024;
/// What a burst has taken is given back.
constexpr std::size_t kSpare = 8;

constexpr std::array<std::string AuditRecord::*, 15> kTexts = {
    &AuditRecord::kind,        &AuditRecord::session_id,  &AuditRecord::user_id,     &AuditRecord::user_email,
    &AuditRecord::method,      &AuditRecord::target_name, &AuditRecord::tool,        &AuditRecord::decision,
    &AuditRecord::policy_id,   &AuditRecord::policy_name, &AuditRecord::error_code,  &AuditRecord::client_ip,
    &AuditRecord::client_name, &AuditRecord::trace_id,    &AuditRecord::request_body};

/// What stands before the texts of a row.
struct Head {
  std::int64_t created_at, duration_ms, bytes_in, bytes_out;
  std::int32_t response_status;
  std::array<std::uint32_t, kTexts.size()> sizes;
};
static_assert(sizeof(Head) == 96, "no gaps");
static_assert(sizeof(AuditRecord) == (kTexts.size() + 1) * sizeof(std::string) + 5 * sizeof(std::int64_t),
              "what AuditRecord has more would be lost here");

}  // namespace

char* RowQueue::room(std::size_t size) {
  if (pieces_.empty() || pieces_.back().size - pieces_.back().used < size) {
    Piece piece;
    if (size <= kPiece && !spare_.empty()) {
      piece = std::move(spare_.back());
      spare_.pop_back();
    } else {
      piece.size = std::max(size, kPiece);
      piece.data.reset(new char[piece.size]);
    }
    pieces_.push_back(std::move(piece));
  }
  Piece& last = pieces_.back();
  char* out = last.data.get() + last.used;
  last.used += size;
  return out;
}

void RowQueue::push(const AuditRecord& row) {
  Head head;
  head.created_at = row.created_at.time_since_epoch().count();
  head.duration_ms = row.duration_ms;
  head.bytes_in = row.bytes_in;
  head.bytes_out = row.bytes_out;
  head.response_status = row.response_status;
  std::size_t size = sizeof head;
  for (std::size_t i = 0; i < kTexts.size(); ++i) {
    head.sizes[i] = static_cast<std::uint32_t>((row.*kTexts[i]).size());
    size += head.sizes[i];
  }
  char* at = room(size);
  std::memcpy(at, &head, sizeof head);
  at += sizeof head;
  for (const auto text : kTexts) at = std::copy((row.*text).begin(), (row.*text).end(), at);
  ++rows_;
}

void RowQueue::pop(AuditRecord& row) {
  while (read_ == pieces_.front().used) {
    Piece done = std::move(pieces_.front());
    pieces_.pop_front();
    read_ = 0;
    done.used = 0;
    if (done.size == kPiece && spare_.size() < kSpare) spare_.push_back(std::move(done));
  }
  const char* at = pieces_.front().data.get() + read_;
  const char* const begin = at;
  Head head;
  std::memcpy(&head, at, sizeof head);
  at += sizeof head;
  row.created_at = Time(Duration(head.created_at));
  row.duration_ms = head.duration_ms;
  row.bytes_in = head.bytes_in;
  row.bytes_out = head.bytes_out;
  row.response_status = head.response_status;
  for (std::size_t i = 0; i < kTexts.size(); ++i) {
    (row.*kTexts[i]).assign(at, head.sizes[i]);
    at += head.sizes[i];
  }
  read_ += static_cast<std::size_t>(at - begin);
  --rows_;
}

void RowQueue::swap(RowQueue& other) noexcept {
  std::swap(pieces_, other.pieces_);
  std::swap(read_, other.read_);
  std::swap(spare_, other.spare_);
  std::swap(rows_, other.rows_);
}

}  // namespace mcpgw::detail
