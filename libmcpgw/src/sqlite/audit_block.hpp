// Audit rows packed together: rows that are stored at the same time say mostly the same, and one record in
// the database costs as much as dozens of them.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mcpgw/audit.hpp"

namespace mcpgw::detail::sqlite {

/// A packed row. The texts point into the block.
struct PackedRow {
  /// In the order of kTextMembers.
  enum Text {
    id,
    kind,
    session_id,
    user_id,
    user_email,
    method,
    target_name,
    tool,
    decision,
    policy_id,
    policy_name,
    error_code,
    client_ip,
    client_name,
    trace_id,
    request_body,
    kTexts
  };

  std::int64_t position = 0;
  std::array<std::string_view, kTexts> text;
  std::int64_t created_at = 0;
  int response_status = 0;
  std::int64_t duration_ms = 0, bytes_in = 0, bytes_out = 0;

  AuditRecord record() const;
};

/// By what blocks are found without being read. What nearly all rows have in common has no entry.
enum class BlockKey { user = 1, target, method, decision, kind, failed };
/// nullopt: it is what nearly all rows have.
std::optional<std::string_view> block_key(BlockKey key, std::string_view value);
/// How many rows of a block have each value.
using BlockKeys = std::map<std::pair<BlockKey, std::string_view>, std::int64_t>;

/// Makes one block. What is added must stay as it is until the block has been stored.
class BlockWriter {
 public:
  /// `position` grows from row to row.
  void add(const AuditRecord& record, std::int64_t position);
  void add(const PackedRow& row);

  std::size_t rows() const noexcept { return rows_; }
  /// Of texts that are not those of the row before: what they take when the block is read.
  std::size_t text_bytes() const noexcept { return text_bytes_; }
  const std::string& data() const noexcept { return data_; }
  std::int64_t first() const noexcept { return first_; }
  std::int64_t oldest() const noexcept { return oldest_; }
  std::int64_t newest() const noexcept { return newest_; }
  /// Of the first row that has one.
  std::string_view first_id() const noexcept { return first_id_; }
  const BlockKeys& keys() const noexcept { return keys_; }

 private:
  void count(BlockKey key, std::string_view value, bool repeated);

  std::string data_;
  PackedRow last_;
  std::size_t rows_ = 0, text_bytes_ = 0;
  std::int64_t first_ = 0, oldest_ = 0, newest_ = 0;
  std::string_view first_id_;
  BlockKeys keys_;
  std::array<std::int64_t*, 7> counted_{};  ///< where the last row was counted, by BlockKey
};

/// The rows of a block, in order. Their texts point into the block's data or are kept here.
class BlockRows {
 public:
  auto begin() const { return rows_.begin(); }
  auto end() const { return rows_.end(); }
  auto rbegin() const { return rows_.rbegin(); }
  auto rend() const { return rows_.rend(); }
  const PackedRow& front() const { return rows_.front(); }
  const PackedRow& back() const { return rows_.back(); }
  const PackedRow& operator[](std::size_t i) const { return rows_[i]; }
  std::size_t size() const { return rows_.size(); }

 private:
  friend std::optional<BlockRows> read_block(std::string_view data, std::int64_t first);
  std::vector<PackedRow> rows_;
  std::deque<std::string> texts_;
};

/// nullopt when it is damaged. `data` must stay as long as the rows.
std::optional<BlockRows> read_block(std::string_view data, std::int64_t first);

}  // namespace mcpgw::detail::sqlite
