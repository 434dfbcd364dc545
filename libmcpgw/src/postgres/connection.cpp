#include "postgres/connection.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <utility>

#include "storage/record_rules.hpp"

namespace mcpgw::detail::postgres {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kBinary = 1;
constexpr int kMinServer = 120000;
constexpr milliseconds kAnswerMargin{2000};  // beyond the server's own limit, for its answer to arrive

std::string big_endian(std::uint64_t value, std::size_t size) {
  std::string bytes(size, '\0');
  for (std::size_t i = size; i-- > 0; value >>= 8) bytes[i] = static_cast<char>(value & 0xff);
  return bytes;
}

int milliseconds_left(Deadline deadline) {
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 3600'000));
}

/// Waits for `events` on `fd`, or for `wake` (-1: none) to be readable. False: the deadline passed.
bool wait(int fd, short events, int wake, Deadline deadline) {
  for (;;) {
    const bool late = steady_clock::now() >= deadline;
    pollfd descriptors[] = {{fd, events, 0}, {wake, POLLIN, 0}};
    const int ready = ::poll(descriptors, wake < 0 ? 1 : 2, late ? 0 : milliseconds_left(deadline) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
    if (late) return false;
  }
}

/// The SQLSTATE that a refused connection ends its message with: it is asked for no other text.
std::string state_of_refusal(PGconn* handle) {
  std::string text = PQerrorMessage(handle);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  if (text.size() < 5) return {};
  auto state = text.substr(text.size() - 5);
  const bool valid = std::all_of(state.begin(), state.end(),
                                 [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); });
  return valid ? state : std::string();
}

/// What libpq says of TLS that failed: its words name the server, never the password, but they are another
/// program's, so they choose among sentences of ours.
std::optional<Error> tls_error(std::string_view text) {
  const auto says = [text](std::string_view words) { return text.find(words) != std::string_view::npos; };
  const auto refused = [](const char* message) {
    return Error{ErrorCode::permission_denied, "storage_tls", message};
  };
  if (says("certificate verify failed") || says("unable to get local issuer"))
    return refused(
        "PostgreSQL's certificate is not signed by an authority of sslrootcert, or has expired: nothing was "
        "sent "
        "to it.");
  if (says("does not match host name") || says("host name must be specified"))
    return refused(
        "PostgreSQL's certificate is for another host than the one in the URL: name the host as the "
        "certificate "
        "does, or give the server a certificate for it.");
  if (says("root certificate file"))
    return refused("sslrootcert cannot be read, and sslmode asks for the certificate to be verified.");
  if (says("server does not support SSL"))
    return refused(
        "PostgreSQL does not offer TLS there, and sslmode asks for it: set ssl = on on the server.");
  if (says("certificate file") || says("private key file") || says("could not load"))
    return refused(
        "sslcert or sslkey cannot be used: both must be readable, and the key for its owner alone.");
  return std::nullopt;
}

Error connect_error(PGconn* handle) {
  const auto state = state_of_refusal(handle);
  if (state.substr(0, 2) == "28")
    return {
        ErrorCode::permission_denied, "storage_refused",
        "PostgreSQL refuses this user, password or address; check the user, and pg_hba.conf on the server."};
  if (state == "3D000")
    return {ErrorCode::not_found, "no_database", "The PostgreSQL server has no database of this name."};
  if (PQconnectionNeedsPassword(handle) != 0)
    return {ErrorCode::permission_denied, "storage_refused",
            "PostgreSQL asks for a password, and none is set."};
  if (auto error = tls_error(PQerrorMessage(handle))) return std::move(*error);
  return storage_unavailable();
}

}  // namespace

Error to_error(std::string_view sqlstate) {
  const auto group = sqlstate.substr(0, 2);
  if (group == "XX" || sqlstate == "42P01" || sqlstate == "42703")
    return {ErrorCode::data_loss, "storage_damaged", "The stored data is damaged; restore a backup."};
  if (sqlstate == "42501" || sqlstate == "3F000")  // the latter: no schema it may write to
    return {ErrorCode::permission_denied, "storage_refused",
            "PostgreSQL denies this user what mcpgw needs: its own tables, and the right to make them."};
  if (group == "22" || (group == "42" && sqlstate != "42501"))
    return {ErrorCode::internal, "storage_protocol", "PostgreSQL did not understand what was asked of it."};
  return storage_unavailable();
}

Result<ConnectionInfo> parse_url(const std::string& url) {
  const Error invalid{ErrorCode::invalid_argument, "invalid_url",
                      "The database must be postgres://user:password@host:port/name?sslmode=...", "url"};
  // Without this, libpq takes a lone word for the name of a database.
  if (url.find('\0') != std::string::npos ||
      (url.find("://") == std::string::npos && url.find('=') == std::string::npos))
    return invalid;
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(url.c_str(), &message), &PQconninfoFree);
  PQfreemem(message);  // it quotes the text
  if (!options) return invalid;
  ConnectionInfo info;
  const auto has = [&](std::string_view name) {
    return std::any_of(info.parameters.begin(), info.parameters.end(),
                       [&](const auto& parameter) { return parameter.first == name; });
  };
  for (const auto* option = options.get(); option->keyword != nullptr; ++option)
    if (option->val != nullptr) info.parameters.emplace_back(option->keyword, option->val);
  const auto add_default = [&](const char* name, const char* value) {
    if (!has(name)) info.parameters.emplace_back(name, value);
  };
  add_default("application_name", "mcpgw");
  // A peer that vanished is noticed; a standby that reads only is no storage.
  add_default("keepalives_idle", "10");
  add_default("keepalives_interval", "5");
  add_default("keepalives_count", "3");
  add_default("target_session_attrs", "read-write");
  std::erase_if(info.parameters, [](const auto& parameter) { return parameter.first == "client_encoding"; });
  info.parameters.emplace_back("client_encoding", "UTF8");
  return info;
}

// --- Parameters, Answer --------------------------------------------------------------------------------

Parameters& Parameters::add(std::int64_t value) {
  values_.push_back(big_endian(static_cast<std::uint64_t>(value), 8));
  nulls_.push_back(false);
  return *this;
}

Parameters& Parameters::add(std::string_view bytes) {
  values_.emplace_back(bytes);
  nulls_.push_back(false);
  return *this;
}

Parameters& Parameters::add_null() {
  values_.emplace_back();
  nulls_.push_back(true);
  return *this;
}

std::int64_t Answer::integer(int row, int column) const {
  const auto* data = PQgetvalue(result_.get(), row, column);
  const int size = PQgetlength(result_.get(), row, column);
  std::uint64_t value = 0;
  for (int i = 0; i < size; ++i) value = (value << 8) | static_cast<unsigned char>(data[i]);
  if (size == 4) return static_cast<std::int32_t>(static_cast<std::uint32_t>(value));
  return static_cast<std::int64_t>(value);
}

std::string Answer::bytes(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column),
          static_cast<std::size_t>(PQgetlength(result_.get(), row, column))};
}

std::uint64_t Answer::affected() const { return std::strtoull(PQcmdTuples(result_.get()), nullptr, 10); }

// --- Connection ----------------------------------------------------------------------------------------

Result<std::unique_ptr<Connection>> Connection::open(const ConnectionInfo& info, Deadline deadline) {
  deadline = std::min(deadline, steady_clock::now() + info.connect_timeout);
  std::vector<const char*> names, values;
  for (const auto& [name, value] : info.parameters) {
    names.push_back(name.c_str());
    values.push_back(value.c_str());
  }
  names.push_back(nullptr);
  values.push_back(nullptr);
  std::unique_ptr<Connection> connection(
      new Connection(PQconnectStartParams(names.data(), values.data(), 0)));
  auto* handle = connection->handle_.get();
  if (handle == nullptr) return storage_unavailable();
  if (PQstatus(handle) == CONNECTION_BAD) return connect_error(handle);
  PQsetErrorVerbosity(handle, PQERRORS_SQLSTATE);
  PQsetNoticeProcessor(
      handle, [](void*, const char*) {}, nullptr);  // else they go to stderr
  for (auto state = PGRES_POLLING_WRITING; state != PGRES_POLLING_OK; state = PQconnectPoll(handle)) {
    if (state == PGRES_POLLING_FAILED) return connect_error(handle);
    if (!wait(PQsocket(handle), state == PGRES_POLLING_READING ? POLLIN : POLLOUT, -1, deadline))
      return storage_unavailable();
  }
  if (PQserverVersion(handle) < kMinServer)
    return Error{ErrorCode::unsupported, "server_too_old", "PostgreSQL 12 or newer is needed."};
  if (const auto* encoding = PQparameterStatus(handle, "server_encoding");
      encoding == nullptr || std::string_view(encoding) != "UTF8")
    return Error{
        ErrorCode::unsupported, "encoding",
        "The database must have the encoding UTF8: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."};
  if (PQsetnonblocking(handle, 1) != 0 || PQenterPipelineMode(handle) != 1) return storage_unavailable();
  // The server gives up by itself, so that no lock outlives the call that wanted it.
  const auto limit = std::to_string(info.call_timeout.count());
  for (const char* name : {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"})
    connection->send_text("SELECT set_config($1, $2, false)", Parameters().add(name).add(limit));
  auto set = connection->run(deadline + kAnswerMargin);
  if (!set) return set.error();
  return connection;
}

void Connection::queue(int accepted, Expected expected) {
  if (accepted == 1)
    expected_.push_back(std::move(expected));
  else
    broken_ = true;
}

void Connection::send(const Statement& statement, const Parameters& parameters) {
  if (broken_) return;
  const bool known = prepared_.count(statement.name) != 0 ||
                     std::any_of(expected_.begin(), expected_.end(), [&](const Expected& expected) {
                       return expected.prepares && expected.name == statement.name;
                     });
  if (!known)
    queue(PQsendPrepare(handle_.get(), statement.name, statement.sql, 0, nullptr), {true, statement.name});
  const auto count = parameters.values_.size();
  std::vector<const char*> values(count);
  std::vector<int> sizes(count), formats(count, kBinary);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = parameters.nulls_[i] ? nullptr : parameters.values_[i].data();
    sizes[i] = static_cast<int>(parameters.values_[i].size());
  }
  queue(PQsendQueryPrepared(handle_.get(), statement.name, static_cast<int>(count), values.data(),
                            sizes.data(), formats.data(), kBinary),
        {false, {}});
}

void Connection::send_text(const std::string& sql, const Parameters& parameters) {
  if (broken_) return;
  const auto count = parameters.values_.size();
  std::vector<const char*> values(count);
  std::vector<int> sizes(count), formats(count, kBinary);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = parameters.nulls_[i] ? nullptr : parameters.values_[i].data();
    sizes[i] = static_cast<int>(parameters.values_[i].size());
  }
  queue(PQsendQueryParams(handle_.get(), sql.c_str(), static_cast<int>(count), nullptr, values.data(),
                          sizes.data(), formats.data(), kBinary),
        {false, {}});
}

Result<std::vector<Answer>> Connection::fail() {
  broken_ = true;
  expected_.clear();
  return storage_unavailable();
}

Result<std::vector<Answer>> Connection::run(Deadline deadline) {
  auto* handle = handle_.get();
  if (broken_ || PQpipelineSync(handle) != 1) return fail();
  std::vector<Answer> answers;
  std::optional<Error> error;
  std::size_t at = 0;  // the statement whose answer is being read
  bool flushed = false;
  for (;;) {
    if (!flushed) {
      const int left = PQflush(handle);
      if (left < 0) return fail();
      flushed = left == 0;
    }
    while (PQisBusy(handle) == 0) {
      std::unique_ptr<PGresult, decltype(&PQclear)> result(PQgetResult(handle), &PQclear);
      if (!result) {  // the end of one statement's answer
        if (PQstatus(handle) == CONNECTION_BAD) return fail();
        continue;
      }
      switch (PQresultStatus(result.get())) {
        case PGRES_PIPELINE_SYNC:
          if (PQstatus(handle) == CONNECTION_BAD) return fail();
          expected_.clear();
          if (error) return *error;
          return answers;
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
          if (at >= expected_.size()) return fail();
          if (expected_[at].prepares)
            prepared_.insert(expected_[at].name);
          else
            answers.emplace_back(result.release());
          ++at;
          break;
        case PGRES_PIPELINE_ABORTED:
          ++at;
          break;
        default: {
          if (PQstatus(handle) == CONNECTION_BAD) return fail();
          const auto* state = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
          if (!error) error = to_error(state ? state : "");
          const std::string_view code = state ? state : "";
          // The server ends this connection, or what was prepared no longer fits: a new one will do.
          if (code.substr(0, 3) == "57P" || code == "26000" || code == "0A000") return fail();
          ++at;
        }
      }
    }
    const short events = flushed ? POLLIN : POLLIN | POLLOUT;
    if (!wait(PQsocket(handle), events, -1, deadline)) return fail();
    if (PQconsumeInput(handle) != 1) return fail();
  }
}

bool Connection::alive() {
  if (broken_) return false;
  pollfd descriptor{PQsocket(handle_.get()), POLLIN, 0};
  if (::poll(&descriptor, 1, 0) == 0) return true;
  // Something has come unasked: a notice, or the end.
  if (PQconsumeInput(handle_.get()) != 1 || PQstatus(handle_.get()) == CONNECTION_BAD) broken_ = true;
  if (!broken_ && (descriptor.revents & (POLLHUP | POLLERR)) != 0) broken_ = true;
  return !broken_;
}

Status Connection::wait_for_notice(int wake, Deadline deadline) {
  (void)wait(PQsocket(handle_.get()), POLLIN, wake, deadline);
  if (PQconsumeInput(handle_.get()) != 1 || PQstatus(handle_.get()) == CONNECTION_BAD) {
    broken_ = true;
    return storage_unavailable();
  }
  return {};
}

std::vector<std::string> Connection::take_notifications() {
  std::vector<std::string> payloads;
  while (auto* notification = PQnotifies(handle_.get())) {
    payloads.emplace_back(notification->extra);
    PQfreemem(notification);
  }
  return payloads;
}

}  // namespace mcpgw::detail::postgres
