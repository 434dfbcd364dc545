#include "observability/audit_export.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "base/text.hpp"
#include "json/raw.hpp"
#include "runtime/unique_fd.hpp"

namespace mcpgw::detail {
namespace {

constexpr const char* kSyslogSocket = "/dev/log";
/// Facility "authpriv", severity "info".
constexpr const char* kSyslogPriority = "<86>";

Status cannot_write() {
  return Error(ErrorCode::unavailable, "audit_export_failed", "Audit rows cannot be exported");
}

/// Where lines go.
class Output {
 public:
  virtual ~Output() = default;
  virtual bool open() = 0;
  /// All or, as far as that can be told, nothing.
  virtual bool write(const std::vector<std::string>& lines) = 0;
};

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) {
    out += line;
    out += '\n';
  }
  return out;
}

class StandardOutput final : public Output {
 public:
  bool open() override { return true; }
  bool write(const std::vector<std::string>& lines) override {
    return write_all(STDOUT_FILENO, joined(lines));
  }
};

/// Opened anew when somebody has moved it away. When it grows too large it is moved to "<path>.1" by itself.
class RotatingFile final : public Output {
 public:
  RotatingFile(std::string path, std::uint64_t max_bytes, unsigned keep)
      : path_(std::move(path)), max_bytes_(max_bytes), keep_(keep) {}

  bool open() override {
    file_ = UniqueFd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    return file_.get() >= 0 && ::fstat(file_.get(), &opened_) == 0;
  }

  bool write(const std::vector<std::string>& lines) override {
    struct stat now {};
    const bool there = ::stat(path_.c_str(), &now) == 0;
    if ((file_.get() < 0 || !there || now.st_ino != opened_.st_ino || now.st_dev != opened_.st_dev) &&
        !open())
      return false;
    if (::fstat(file_.get(), &now) != 0) return false;
    const bool regular = S_ISREG(now.st_mode);
    const std::string text = joined(lines);
    if (regular && now.st_size > 0 && static_cast<std::uint64_t>(now.st_size) + text.size() > max_bytes_) {
      if (!rotate() || !open() || ::fstat(file_.get(), &now) != 0) return false;
    }
    if (write_all(file_.get(), text)) return true;
    const int fault = errno;
    if (regular && ::ftruncate(file_.get(), now.st_size) != 0) {
      // Half a line stays: it is ended, so that what follows can be read.
      (void)write_all(file_.get(), "\n");
    }
    errno = fault;
    return false;
  }

 private:
  bool rotate() {
    if (keep_ == 0) return ::unlink(path_.c_str()) == 0;
    const auto numbered = [&](unsigned n) { return path_ + '.' + std::to_string(n); };
    for (unsigned n = keep_; n > 1; --n)
      if (::rename(numbered(n - 1).c_str(), numbered(n).c_str()) != 0 && errno != ENOENT) return false;
    return ::rename(path_.c_str(), numbered(1).c_str()) == 0;
  }

  const std::string path_;
  const std::uint64_t max_bytes_;
  const unsigned keep_;
  UniqueFd file_;
  struct stat opened_ {};
};

/// Not by syslog(3), which tells nobody when there is no daemon.
class Syslog final : public Output {
 public:
  explicit Syslog(std::string path) : path_(std::move(path)) {}

  bool open() override {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path) return false;
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (socket_.get() < 0) return false;
    const timeval patience{5, 0};
    (void)::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
      return true;
    socket_.reset();
    return false;
  }

  bool write(const std::vector<std::string>& lines) override {
    // A batch that is tried again begins with what it began with; more may have come behind.
    std::size_t at = sent_.size() <= lines.size() && std::equal(sent_.begin(), sent_.end(), lines.begin())
                         ? sent_.size()
                         : 0;
    sent_.clear();
    for (; at < lines.size(); ++at) {
      if (send(kSyslogPriority + std::string("mcpgw[") + std::to_string(::getpid()) + "]: " + lines[at]))
        continue;
      sent_.assign(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(at));
      return false;
    }
    return true;
  }

 private:
  bool send(const std::string& message) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (socket_.get() < 0 && !open()) return false;
      if (::send(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL) >= 0) return true;
      if (errno == EMSGSIZE) {
        // Longer than any daemon here takes: the row without its body.
        const auto at = message.find(R"(,"request_body":)");
        return at != std::string::npos && send(message.substr(0, at) + '}');
      }
      socket_.reset();  // the daemon was restarted
    }
    return false;
  }

  const std::string path_;
  UniqueFd socket_;
  std::vector<std::string> sent_;  ///< of a batch that failed
};

class ExportingSink final : public AuditSink {
 public:
  ExportingSink(std::shared_ptr<AuditSink> inner, std::unique_ptr<Output> output)
      : inner_(std::move(inner)), output_(std::move(output)) {}

  Status append(const std::vector<AuditRecord>& batch) override {
    if (Status stored = inner_->append(batch); !stored) return stored;
    std::vector<std::string> lines;
    lines.reserve(batch.size());
    for (const AuditRecord& record : batch) lines.push_back(audit_json(record));
    const std::lock_guard lock(mutex_);
    return output_->write(lines) ? Status() : cannot_write();
  }
  Result<AuditPage> query(const AuditQuery& query) override { return inner_->query(query); }
  Result<std::uint64_t> purge(Time cutoff) override { return inner_->purge(cutoff); }

 private:
  const std::shared_ptr<AuditSink> inner_;
  std::mutex mutex_;
  const std::unique_ptr<Output> output_;  // guarded by the mutex
};

using raw::put;
using raw::put_if;

void put_or_null(std::string& out, const char* name, std::string_view value) {
  if (!value.empty()) return put(out, name, value);
  out += std::string(",\"") + name + "\":null";
}

void put_number(std::string& out, const char* name, std::int64_t value) {
  out += std::string(",\"") + name + "\":" + std::to_string(value);
}

}  // namespace

std::string audit_json(const AuditRecord& record) {
  std::string out;
  put(out, "id", record.id);
  put(out, "kind", record.kind);
  put(out, "created_at", format_time(record.created_at));
  put_if(out, "session_id", record.session_id);
  put_if(out, "user_id", record.user_id);
  put_if(out, "user_email", record.user_email);
  put(out, "method", record.method);
  put_if(out, "target_name", record.target_name);
  put_if(out, "tool", record.tool);
  put_or_null(out, "decision", record.decision);
  put_or_null(out, "policy_id", record.policy_id);
  put_or_null(out, "policy_name", record.policy_name);
  put_number(out, "response_status", record.response_status);
  put_or_null(out, "error_code", record.error_code);
  put_number(out, "duration_ms", record.duration_ms);
  put_number(out, "bytes_in", record.bytes_in);
  put_number(out, "bytes_out", record.bytes_out);
  put(out, "client_ip", record.client_ip);
  put_if(out, "client_name", record.client_name);
  put_if(out, "trace_id", record.trace_id);
  if (!record.request_body.empty()) {
    // As the client wrote it, but on one line: JSON has line breaks between its tokens only.
    out += R"(,"request_body":)";
    for (const char c : record.request_body) out += c == '\n' || c == '\r' ? ' ' : c;
  }
  return out += '}';
}

Result<std::shared_ptr<AuditSink>> exporting(std::shared_ptr<AuditSink> sink, const AuditOptions& options) {
  const std::string& to = options.export_to;
  std::unique_ptr<Output> output;
  if (to == "stdout")
    output = std::make_unique<StandardOutput>();
  else if (to == "syslog")
    output = std::make_unique<Syslog>(kSyslogSocket);
  else if (to.starts_with("syslog:"))
    output = std::make_unique<Syslog>(to.substr(7));
  else
    output = std::make_unique<RotatingFile>(to, options.export_max_bytes, options.export_keep);
  if (!output->open())
    return Error(ErrorCode::invalid_argument, "invalid_option",
                 "The audit export cannot be opened: " + std::string(std::strerror(errno)), "audit.export");
  return std::shared_ptr<AuditSink>(std::make_shared<ExportingSink>(std::move(sink), std::move(output)));
}

}  // namespace mcpgw::detail
