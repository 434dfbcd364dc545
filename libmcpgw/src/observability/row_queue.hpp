// RowQueue: audit rows on their way to the thread that stores them, packed into a few pieces of memory that
// are used over and over. A row as it is has a dozen texts, each in memory that one thread takes and another
// gives back, which costs more than all else that is done with it.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "mcpgw/audit.hpp"

namespace mcpgw::detail {

/// In order, first in, first out; not for several threads at once. Ids are left out: whoever takes a row out
/// gives it one.
class RowQueue {
 public:
  void push(const AuditRecord& row);
  /// Into `row`, whose memory is used again. There must be one.
  void pop(AuditRecord& row);

  std::size_t size() const noexcept { return rows_; }
  bool empty() const noexcept { return rows_ == 0; }
  void swap(RowQueue& other) noexcept;

 private:
  struct Piece {
    std::unique_ptr<char[]> data;
    std::size_t size = 0;
    std::size_t used = 0;
  };
  char* room(std::size_t size);

  std::deque<Piece> pieces_;  ///< that hold rows, the last one is filled
  std::size_t read_ = 0;      ///< of the first
  std::vector<Piece> spare_;
  std::size_t rows_ = 0;
};

}  // namespace mcpgw::detail
