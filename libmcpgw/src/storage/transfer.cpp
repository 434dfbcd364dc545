#include "mcpgw/transfer.hpp"

#include <set>
#include <string_view>
#include <utility>

#include "base/text.hpp"
#include "storage/records.hpp"

namespace mcpgw {
namespace {

using detail::collection::kMeta;
using detail::meta::kSchema;

// The record that tells a gateway the schema of all others. While a copy is under way it holds a number that
// no program knows, so none starts on a half.
constexpr std::string_view kUnfinished = R"({"schema":2147483647,"id":"unfinished copy"})";

constexpr std::size_t kBatchBytes = std::size_t{4} << 20;
constexpr std::size_t kBatchOperations = 500;

/// A digest over texts of any length and content, one after the other.
class Digest {
 public:
  void add(std::string_view text) {
    pending_ += std::to_string(text.size()) + ":";
    pending_ += text;
  }
  void add(std::int64_t number) { add(std::to_string(number)); }
  /// At the end of each record or row.
  void close() {
    state_ = detail::sha256(state_ + pending_);
    pending_.clear();
  }
  std::string hex() const { return detail::to_hex(state_); }

 private:
  std::string state_ = std::string(32, '\0');
  std::string pending_;
};

struct Digests {
  StorageContents contents;
  Digest records, audit;

  void add(const Record& record) {
    records.add(record.collection);
    records.add(record.key);
    records.add(record.value);
    records.close();
    ++contents.records;
  }
  void add(const AuditRecord& row) {
    for (const auto* text :
         {&row.id, &row.kind, &row.session_id, &row.user_id, &row.user_email, &row.method, &row.target_name,
          &row.tool, &row.decision, &row.policy_id, &row.policy_name, &row.error_code, &row.client_ip,
          &row.client_name, &row.trace_id, &row.request_body})
      audit.add(*text);
    for (const std::int64_t number :
         {std::int64_t{row.created_at.time_since_epoch().count()}, std::int64_t{row.response_status},
          row.duration_ms, row.bytes_in, row.bytes_out})
      audit.add(number);
    audit.close();
    ++contents.audit_rows;
  }
  StorageContents finish() {
    contents.records_digest = records.hex();
    contents.audit_digest = audit.hex();
    return contents;
  }
};

/// Collects writes and makes them in transactions of a bounded size.
class Writer {
 public:
  explicit Writer(Storage& storage) : storage_(storage) {}
  Status add(Operation operation) {
    bytes_ += operation.value.size();
    operations_.push_back(std::move(operation));
    if (operations_.size() < kBatchOperations && bytes_ < kBatchBytes) return {};
    return flush();
  }
  Status flush() {
    if (operations_.empty()) return {};
    auto done = storage_.commit(operations_);
    operations_.clear();
    bytes_ = 0;
    if (!done) return done.error();
    return {};
  }

 private:
  Storage& storage_;
  std::vector<Operation> operations_;
  std::size_t bytes_ = 0;
};

Operation put(std::string_view collection, std::string_view key, std::string_view value) {
  return {Operation::Kind::put, std::string(collection), std::string(key), std::string(value), std::nullopt};
}

bool is_schema(const Record& record) { return record.collection == kMeta && record.key == kSchema; }

/// Makes room: nothing may be there, unless it is what an interrupted copy left.
Status prepare(const CopyTarget& to) {
  auto schema = to.storage->get(kMeta, kSchema);
  if (!schema) return schema.error();
  const bool interrupted = *schema && (*schema)->value == kUnfinished;
  auto snapshot = to.snapshot();
  if (!snapshot) return snapshot.error();
  Writer writer(*to.storage);
  for (;;) {
    auto records = (*snapshot)->next_records();
    if (!records) return records.error();
    if (records->empty()) break;
    if (!interrupted)
      return Error{ErrorCode::conflict, "not_empty",
                   "There is something in the database that is to be filled; name an empty one."};
    for (auto& record : *records)
      if (!is_schema(record))
        if (auto ok = writer.add({Operation::Kind::erase, record.collection, record.key, {}, std::nullopt});
            !ok)
          return ok;
  }
  if (auto ok = writer.flush(); !ok) return ok;
  auto rows = (*snapshot)->next_audit_rows();
  if (!rows) return rows.error();
  if (!rows->empty()) {
    if (!interrupted)
      return Error{ErrorCode::conflict, "not_empty",
                   "There is an audit log in the database that is to be filled; name an empty one."};
    if (auto purged = to.audit->purge(Time::max()); !purged) return purged.error();
  }
  if (auto done = to.storage->commit({put(kMeta, kSchema, kUnfinished)}); !done) return done.error();
  return {};
}

}  // namespace

Result<StorageContents> contents_of(StorageSnapshot& snapshot) {
  Digests digests;
  for (;;) {
    auto records = snapshot.next_records();
    if (!records) return records.error();
    if (records->empty()) break;
    for (const auto& record : *records) digests.add(record);
  }
  for (;;) {
    auto rows = snapshot.next_audit_rows();
    if (!rows) return rows.error();
    if (rows->empty()) break;
    for (const auto& row : *rows) digests.add(row);
  }
  return digests.finish();
}

Result<StorageContents> copy_storage(StorageSnapshot& from, const CopyTarget& to,
                                     const CopyOptions& options) {
  if (auto ok = prepare(to); !ok) return ok.error();
  Digests digests;
  Writer writer(*to.storage);
  std::string schema;
  const auto report = [&] {
    if (options.progress) options.progress(digests.contents.records, digests.contents.audit_rows);
  };
  for (;;) {
    auto records = from.next_records();
    if (!records) return records.error();
    if (records->empty()) break;
    for (auto& record : *records) {
      digests.add(record);
      if (is_schema(record)) {
        schema = std::move(record.value);
        continue;
      }
      if (auto ok = writer.add(put(record.collection, record.key, record.value)); !ok) return ok.error();
    }
    report();
  }
  if (auto ok = writer.flush(); !ok) return ok.error();
  while (options.audit) {
    auto rows = from.next_audit_rows();
    if (!rows) return rows.error();
    if (rows->empty()) break;
    for (const auto& row : *rows) digests.add(row);
    if (auto ok = to.audit->append(*rows); !ok) return ok.error();
    report();
  }
  // Last of all: from here on a gateway may start on it.
  auto done = to.storage->commit(
      {schema.empty()
           ? Operation{Operation::Kind::erase, std::string(kMeta), std::string(kSchema), {}, std::nullopt}
           : put(kMeta, kSchema, schema)});
  if (!done) return done.error();
  auto snapshot = to.snapshot();
  if (!snapshot) return snapshot.error();
  const auto copied = contents_of(**snapshot);
  if (!copied) return copied.error();
  const auto wanted = digests.finish();
  if (copied->records != wanted.records || copied->records_digest != wanted.records_digest ||
      copied->audit_rows != wanted.audit_rows || copied->audit_digest != wanted.audit_digest)
    return Error{ErrorCode::data_loss, "copy_differs",
                 "What was read back differs from what was written: somebody else wrote to the copy, or the "
                 "storage is damaged. Do not use the copy."};
  return wanted;
}

}  // namespace mcpgw
