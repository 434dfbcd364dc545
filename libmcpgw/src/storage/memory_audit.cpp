#include <algorithm>
#include <deque>
#include <mutex>
#include <shared_mutex>
#include <unordered_set>
#include <utility>

#include "base/text.hpp"
#include "mcpgw/audit.hpp"
#include "storage/audit_rules.hpp"

namespace mcpgw {
namespace {

// A filter with its text forms worked out once a query.
class Matcher {
 public:
  explicit Matcher(const AuditFilter& filter)
      : filter_(filter),
        status_(filter.status ? *detail::parse_status(*filter.status) : detail::StatusRange{}),
        text_(detail::to_lower(filter.text.value_or(""))) {}

  bool operator()(const AuditRecord& row) const {
    const auto is = [](const std::optional<std::string>& wanted, const std::string& value) {
      return !wanted || *wanted == value;
    };
    return is(filter_.user_id, row.user_id) && is(filter_.target_name, row.target_name) &&
           is(filter_.method, row.method) && is(filter_.decision, row.decision) &&
           is(filter_.kind, row.kind) && row.response_status >= status_.low &&
           row.response_status <= status_.high && (!filter_.since || row.created_at >= *filter_.since) &&
           (!filter_.until || row.created_at < *filter_.until) && (text_.empty() || has_text(row));
  }

 private:
  bool has_text(const AuditRecord& row) const {
    return detail::contains_icase(row.method, text_) || detail::contains_icase(row.tool, text_) ||
           detail::contains_icase(row.target_name, text_) || detail::contains_icase(row.error_code, text_) ||
           detail::contains_icase(row.user_email, text_);
  }

  const AuditFilter& filter_;
  detail::StatusRange status_;
  std::string text_;
};

class MemoryAuditSink final : public AuditSink {
 public:
  explicit MemoryAuditSink(std::size_t capacity) : capacity_(std::max<std::size_t>(capacity, 1)) {}

  Status append(const std::vector<AuditRecord>& batch) override {
    std::unique_lock lock(mutex_);
    for (const auto& record : batch) {
      if (!record.id.empty() && !ids_.insert(record.id).second) continue;
      rows_.push_back({++last_position_, record});
    }
    while (rows_.size() > capacity_) {
      ids_.erase(rows_.front().record.id);
      rows_.pop_front();
    }
    return {};
  }

  Result<AuditPage> query(const AuditQuery& query) override {
    if (auto ok = detail::check_audit_query(query); !ok) return ok.error();
    const Matcher matches(query.filter);
    const std::size_t limit = std::min(query.limit, detail::kMaxAuditPage);
    AuditPage page;
    std::size_t skip = query.offset;
    std::int64_t last = 0;
    std::shared_lock lock(mutex_);
    for (auto row = rows_.rbegin(); row != rows_.rend(); ++row) {
      if (!matches(row->record)) continue;
      ++page.total;
      if (query.before != 0 && row->position >= query.before) continue;
      if (skip > 0) {
        --skip;
      } else if (page.records.size() < limit) {
        page.records.push_back(row->record);
        last = row->position;
      } else {
        page.next = last;  // 0 when the limit is 0: there is no page to continue from
      }
    }
    return page;
  }

  Result<std::uint64_t> purge(Time cutoff) override {
    std::unique_lock lock(mutex_);
    const auto before = rows_.size();
    const auto old = [&](const Row& row) { return row.record.created_at < cutoff; };
    for (const auto& row : rows_)
      if (old(row)) ids_.erase(row.record.id);
    rows_.erase(std::remove_if(rows_.begin(), rows_.end(), old), rows_.end());
    return before - rows_.size();
  }

 private:
  struct Row {
    std::int64_t position;
    AuditRecord record;
  };

  const std::size_t capacity_;
  std::shared_mutex mutex_;  // protects the members below
  std::deque<Row> rows_;     // oldest first
  std::unordered_set<std::string> ids_;
  std::int64_t last_position_ = 0;
};

}  // namespace

std::shared_ptr<AuditSink> make_memory_audit_sink(std::size_t capacity) {
  return std::make_shared<MemoryAuditSink>(capacity);
}

}  // namespace mcpgw
