#include "postgres/reflow_source.hpp"

#include <openssl/evp.h>

#include <chrono>
#include <memory>
#include <utility>

#include "base/text.hpp"
#include "postgres/pool.hpp"

namespace mcpgw::detail::postgres {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kReadLimit{120};
constexpr std::size_t kNonceBytes = 12, kTagBytes = 16;

/// A row as JSON; times besides as numbers, since their text has the session's zone.
std::string select(std::string_view table, std::string_view rest) {
  const auto micros = [](const char* column) {
    return std::string("'_us_") + column + "', (extract(epoch from (to_jsonb(t)->>'" + column +
           "')::timestamptz) * 1000000)::bigint";
  };
  return "SELECT (to_jsonb(t) || jsonb_build_object(" + micros("created_at") + ", " + micros("updated_at") +
         "))::text FROM " + std::string(table) + " AS t " + std::string(rest);
}

}  // namespace

Result<ReflowSource> ReflowSource::open(const std::string& url) {
  PostgresOptions options;
  options.url = url;
  options.call_timeout_ms = static_cast<int>(std::chrono::milliseconds(kReadLimit).count());
  auto info = connection_info(options);
  if (!info) return info.error();
  auto connection = Connection::open(*info, steady_clock::now() + info->connect_timeout);
  if (!connection) return connection.error();
  (*connection)->send_text("SELECT set_config('idle_in_transaction_session_timeout', '0', false)");
  (*connection)->send_text("SELECT set_config('TimeZone', 'UTC', false)");  // of times that name no zone
  if (auto set = (*connection)->run(steady_clock::now() + kReadLimit); !set) return set.error();
  (*connection)->send_text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  (*connection)
      ->send_text(
          "SELECT count(*) FROM unnest(ARRAY['users', 'targets', 'authorization_policies', "
          "'policy_subjects']) AS name"
          " WHERE to_regclass(name) IS NOT NULL");
  auto found = (*connection)->run(steady_clock::now() + kReadLimit);
  if (!found) return found.error();
  if ((*found)[1].integer(0, 0) != 4)
    return Error{ErrorCode::not_found, "no_reflow", "The database is none of a Reflow Gateway."};
  return ReflowSource(std::move(*connection));
}

Result<std::vector<Json>> ReflowSource::read(const std::string& sql, const Parameters& parameters) {
  connection_->send_text(sql, parameters);
  auto answers = connection_->run(steady_clock::now() + kReadLimit);
  if (!answers) return answers.error();
  std::vector<Json> out;
  for (int row = 0; row < answers->front().rows(); ++row) {
    auto parsed = parse_json(answers->front().bytes(row, 0), 128);
    if (!parsed || !parsed->is_object()) return to_error("XX001");
    out.push_back(std::move(*parsed));
  }
  return out;
}

Result<std::vector<Json>> ReflowSource::rows(std::string_view table, std::string_view order) {
  connection_->send_text("SELECT count(*) FROM pg_class WHERE oid = to_regclass($1::text)",
                         Parameters().add(table));
  auto exists = connection_->run(steady_clock::now() + kReadLimit);
  if (!exists) return exists.error();
  if (exists->front().integer(0, 0) == 0) return std::vector<Json>{};
  return read(select(table, "ORDER BY " + std::string(order)));
}

Result<std::vector<Json>> ReflowSource::next_log_rows() {
  if (!logs_begun_) {
    connection_->send_text("SELECT count(*) FROM pg_class WHERE oid = to_regclass('request_logs')");
    auto exists = connection_->run(steady_clock::now() + kReadLimit);
    if (!exists) return exists.error();
    if (exists->front().integer(0, 0) == 0) return std::vector<Json>{};
    connection_->send_text("DECLARE reflow_logs NO SCROLL CURSOR FOR " +
                           select("request_logs", "ORDER BY created_at, id"));
    if (auto declared = connection_->run(steady_clock::now() + kReadLimit); !declared)
      return declared.error();
    logs_begun_ = true;
  }
  return read("FETCH 500 FROM reflow_logs");
}

std::string text_of(const Json& row, const char* column) {
  const auto found = row.find(column);
  return found != row.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::vector<std::string> texts_of(const Json& row, const char* column) {
  std::vector<std::string> out;
  if (const auto found = row.find(column); found != row.end() && found->is_array())
    for (const auto& element : *found)
      if (element.is_string()) out.push_back(element.get<std::string>());
  return out;
}

std::int64_t number_of(const Json& row, const char* column) {
  const auto found = row.find(column);
  return found != row.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

bool flag_of(const Json& row, const char* column, bool otherwise) {
  const auto found = row.find(column);
  return found != row.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

Time time_of(const Json& row, const char* column) {
  return Time(Duration(number_of(row, (std::string("_us_") + column).c_str())));
}

std::optional<std::string> open_reflow_value(std::string_view key, std::string_view sealed) {
  const auto bytes = from_base64(sealed);
  if (!bytes || bytes->size() < kNonceBytes + kTagBytes || key.size() != 32) return std::nullopt;
  const auto* data = reinterpret_cast<const unsigned char*>(bytes->data());
  const auto size = bytes->size() - kNonceBytes - kTagBytes;
  std::string tag = bytes->substr(kNonceBytes + size), plain(size + kTagBytes, '\0');
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(EVP_CIPHER_CTX_new(),
                                                                                &EVP_CIPHER_CTX_free);
  int written = 0, rest = 0;
  auto* out = reinterpret_cast<unsigned char*>(plain.data());
  const bool good =
      context &&
      EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr,
                         reinterpret_cast<const unsigned char*>(key.data()), data) == 1 &&
      EVP_DecryptUpdate(context.get(), out, &written, data + kNonceBytes, static_cast<int>(size)) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, static_cast<int>(kTagBytes), tag.data()) ==
          1 &&
      EVP_DecryptFinal_ex(context.get(), out + written, &rest) == 1;
  if (!good) return std::nullopt;
  plain.resize(static_cast<std::size_t>(written + rest));
  return plain;
}

}  // namespace mcpgw::detail::postgres
