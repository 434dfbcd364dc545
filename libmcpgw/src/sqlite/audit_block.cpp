#include "sqlite/audit_block.hpp"

#include <algorithm>
#include <cstring>

namespace mcpgw::detail::sqlite {
namespace {

// A block: its form, then each row: which texts are those of the row before (one bit each), the numbers as
// differences or as they are, then the other texts: how many bytes at the beginning and at the end are those
// of the text before, and what stands between with its length. Numbers are of variable length, seven bits a
// byte, the sign lowest. In form 1 the other texts are whole.
constexpr char kWhole = 1, kForm = 2;
/// What the texts of a block may take beside what stands in it; writers stay far below.
constexpr std::size_t kMaxTexts = 16 * 1024 * 1024;

std::size_t common_begin(std::string_view a, std::string_view b) {
  const std::size_t size = std::min(a.size(), b.size());
  std::size_t at = 0;
  for (std::uint64_t x, y; at + 8 <= size; at += 8) {
    std::memcpy(&x, a.data() + at, 8);
    std::memcpy(&y, b.data() + at, 8);
    if (x != y) break;
  }
  while (at < size && a[at] == b[at]) ++at;
  return at;
}

/// Of what is not in common at the beginning.
std::size_t common_end(std::string_view a, std::string_view b, std::size_t begin) {
  const std::size_t size = std::min(a.size(), b.size()) - begin;
  std::size_t count = 0;
  for (std::uint64_t x, y; count + 8 <= size; count += 8) {
    std::memcpy(&x, a.data() + a.size() - count - 8, 8);
    std::memcpy(&y, b.data() + b.size() - count - 8, 8);
    if (x != y) break;
  }
  while (count < size && a[a.size() - count - 1] == b[b.size() - count - 1]) ++count;
  return count;
}

constexpr std::array<std::string AuditRecord::*, PackedRow::kTexts> kTextMembers = {
    &AuditRecord::id,          &AuditRecord::kind,        &AuditRecord::session_id,
    &AuditRecord::user_id,     &AuditRecord::user_email,  &AuditRecord::method,
    &AuditRecord::target_name, &AuditRecord::tool,        &AuditRecord::decision,
    &AuditRecord::policy_id,   &AuditRecord::policy_name, &AuditRecord::error_code,
    &AuditRecord::client_ip,   &AuditRecord::client_name, &AuditRecord::trace_id,
    &AuditRecord::request_body};

/// Numbers on their way into a block: together, since each would look at the string's end again.
class Numbers {
 public:
  void put(std::uint64_t number) {
    while (number >= 0x80) {
      bytes_[size_++] = static_cast<char>(number | 0x80);
      number >>= 7;
    }
    bytes_[size_++] = static_cast<char>(number);
  }
  void put_signed(std::int64_t number) {
    const auto bits = static_cast<std::uint64_t>(number);
    put((bits << 1) ^ (number < 0 ? ~std::uint64_t{0} : 0));
  }
  void move_to(std::string& out) {
    out.append(bytes_.data(), size_);
    size_ = 0;
  }

 private:
  static constexpr std::size_t kMost = 7, kLongest = 10;
  std::array<char, kMost * kLongest> bytes_;
  std::size_t size_ = 0;
};

/// Differences wrap round, so that no time is out of range.
std::int64_t difference(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b));
}

/// Reads what the functions above wrote; after a fault everything is empty.
class Reader {
 public:
  explicit Reader(std::string_view data) : rest_(data) {}

  std::uint64_t unsigned_number() {
    std::uint64_t out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) break;
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      out |= std::uint64_t{byte & 0x7fU} << shift;
      if (byte < 0x80) return out;
    }
    return fail(), 0;
  }
  std::int64_t signed_number() {
    const std::uint64_t bits = unsigned_number();
    return static_cast<std::int64_t>((bits >> 1) ^ (~(bits & 1) + 1));
  }
  std::int64_t after(std::int64_t before) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(before) +
                                     static_cast<std::uint64_t>(signed_number()));
  }
  std::string_view text() {
    const std::uint64_t size = unsigned_number();
    if (size > rest_.size()) return fail(), std::string_view();
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }
  bool done() const { return rest_.empty(); }
  bool good() const { return good_; }

 private:
  void fail() {
    good_ = false;
    rest_ = {};
  }

  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

AuditRecord PackedRow::record() const {
  AuditRecord out;
  for (std::size_t i = 0; i < kTexts; ++i) (out.*kTextMembers[i]) = text[i];
  out.created_at = Time(Duration(created_at));
  out.response_status = response_status;
  out.duration_ms = duration_ms;
  out.bytes_in = bytes_in;
  out.bytes_out = bytes_out;
  return out;
}

std::optional<std::string_view> block_key(BlockKey key, std::string_view value) {
  const bool common = (key == BlockKey::method && value == "tools/call") ||
                      (key == BlockKey::decision && value == "allow") ||
                      (key == BlockKey::kind && value == "mcp") || (key == BlockKey::failed && value.empty());
  return common ? std::nullopt : std::optional(value);
}

void BlockWriter::add(const AuditRecord& record, std::int64_t position) {
  PackedRow row;
  row.position = position;
  for (std::size_t i = 0; i < PackedRow::kTexts; ++i) row.text[i] = record.*kTextMembers[i];
  row.created_at = record.created_at.time_since_epoch().count();
  row.response_status = record.response_status;
  row.duration_ms = record.duration_ms;
  row.bytes_in = record.bytes_in;
  row.bytes_out = record.bytes_out;
  add(row);
}

void BlockWriter::add(const PackedRow& row) {
  if (rows_ == 0) {
    data_ = kForm;
    first_ = last_.position = row.position;
    oldest_ = newest_ = row.created_at;
  }
  std::uint64_t same = 0;
  for (std::size_t i = 0; i < PackedRow::kTexts; ++i)
    if (row.text[i] == last_.text[i]) same |= std::uint64_t{1} << i;
  Numbers numbers;
  numbers.put(same);
  numbers.put_signed(difference(row.position, last_.position));
  numbers.put_signed(difference(row.created_at, last_.created_at));
  numbers.put_signed(row.response_status);
  numbers.put_signed(row.duration_ms);
  numbers.put_signed(row.bytes_in);
  numbers.put_signed(row.bytes_out);
  numbers.move_to(data_);
  for (std::size_t i = 0; i < PackedRow::kTexts; ++i) {
    if ((same >> i & 1) != 0) continue;
    const std::string_view text = row.text[i], before = last_.text[i];
    const std::size_t begin = common_begin(before, text), end = common_end(before, text, begin);
    numbers.put(begin);
    numbers.put(end);
    numbers.put(text.size() - begin - end);
    numbers.move_to(data_);
    data_ += text.substr(begin, text.size() - begin - end);
    text_bytes_ += text.size();
  }
  const auto repeated = [&](PackedRow::Text text) { return rows_ > 0 && (same >> text & 1) != 0; };
  count(BlockKey::user, row.text[PackedRow::user_id], repeated(PackedRow::user_id));
  count(BlockKey::target, row.text[PackedRow::target_name], repeated(PackedRow::target_name));
  count(BlockKey::method, row.text[PackedRow::method], repeated(PackedRow::method));
  count(BlockKey::decision, row.text[PackedRow::decision], repeated(PackedRow::decision));
  count(BlockKey::kind, row.text[PackedRow::kind], repeated(PackedRow::kind));
  const bool failed = row.response_status >= 400;
  count(BlockKey::failed, failed ? "1" : "", rows_ > 0 && failed == (last_.response_status >= 400));
  if (first_id_.empty()) first_id_ = row.text[PackedRow::id];
  oldest_ = std::min(oldest_, row.created_at);
  newest_ = std::max(newest_, row.created_at);
  last_ = row;
  ++rows_;
}

void BlockWriter::count(BlockKey key, std::string_view value, bool repeated) {
  std::int64_t*& place = counted_[static_cast<std::size_t>(key)];
  if (!repeated) place = block_key(key, value) ? &keys_[{key, value}] : nullptr;
  if (place != nullptr) ++*place;
}

std::optional<BlockRows> read_block(std::string_view data, std::int64_t first) {
  if (data.empty() || (data.front() != kForm && data.front() != kWhole)) return std::nullopt;
  const bool whole = data.front() == kWhole;
  const std::size_t max_texts = kMaxTexts + 2 * data.size();
  Reader reader(data.substr(1));
  BlockRows out;
  PackedRow row;
  row.position = first;
  std::size_t texts = 0;
  while (!reader.done()) {
    const std::uint64_t same = reader.unsigned_number();
    row.position = reader.after(row.position);
    row.created_at = reader.after(row.created_at);
    row.response_status = static_cast<int>(reader.signed_number());
    row.duration_ms = reader.signed_number();
    row.bytes_in = reader.signed_number();
    row.bytes_out = reader.signed_number();
    for (std::size_t i = 0; i < PackedRow::kTexts; ++i) {
      if ((same >> i & 1) != 0) continue;
      const std::string_view before = row.text[i];
      const std::uint64_t begin = whole ? 0 : reader.unsigned_number();
      const std::uint64_t end = whole ? 0 : reader.unsigned_number();
      const std::string_view between = reader.text();
      if (begin > before.size() || end > before.size() - begin) return std::nullopt;
      if (begin + end == 0) {
        row.text[i] = between;
        continue;
      }
      texts += begin + end + between.size();
      if (texts > max_texts) return std::nullopt;
      std::string& text = out.texts_.emplace_back();
      text.reserve(begin + end + between.size());
      text.append(before.substr(0, begin)).append(between).append(before.substr(before.size() - end));
      row.text[i] = text;
    }
    if (!reader.good()) return std::nullopt;
    out.rows_.push_back(row);
  }
  return out;
}

}  // namespace mcpgw::detail::sqlite
