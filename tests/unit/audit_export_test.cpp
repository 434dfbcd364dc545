// Audit rows as JSON lines: what a line says, rotation, what is full or away.
#include "observability/audit_export.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "json/raw.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

class KeptRows final : public AuditSink {
 public:
  Status append(const std::vector<AuditRecord>& batch) override {
    if (broken) return Error(ErrorCode::unavailable, "storage_unavailable", "away");
    for (const AuditRecord& row : batch) rows.push_back(row.id);
    return {};
  }
  Result<AuditPage> query(const AuditQuery&) override { return AuditPage(); }
  Result<std::uint64_t> purge(Time) override { return std::uint64_t{7}; }
  std::vector<std::string> rows;
  bool broken = false;
};

struct Directory {
  Directory() {
    char name[] = "/tmp/mcpgw-export-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
  }
  ~Directory() { (void)std::system(("rm -rf '" + path + "'").c_str()); }
  std::string path;
};

std::string content(const std::string& path) {
  std::ifstream file(path);
  std::stringstream out;
  out << file.rdbuf();
  return out.str();
}

AuditRecord row(const std::string& id, const std::string& body = {}) {
  AuditRecord out;
  out.id = id;
  out.kind = "mcp";
  out.method = "tools/call";
  out.response_status = 200;
  out.request_body = body;
  return out;
}

Result<std::shared_ptr<AuditSink>> open(std::shared_ptr<AuditSink> inner, const std::string& to,
                                        std::uint64_t max = 1 << 20, unsigned keep = 2) {
  AuditOptions options;
  options.export_to = to;
  options.export_max_bytes = max;
  options.export_keep = keep;
  return exporting(std::move(inner), options);
}

}  // namespace

TEST_CASE("a line is one JSON object, whatever a row holds") {
  AuditRecord full = row("1", "{\"a\":\n [1.0,\r\n9007199254740993]}");
  full.session_id = "s";
  full.user_email = "a\"b\n\x01@example.test";
  full.decision = "deny";
  full.policy_name = "p";
  full.error_code = "denied";
  full.duration_ms = 12;
  const std::string text = audit_json(full);
  CHECK(text.find('\n') == std::string::npos);
  CHECK(raw::check(text, 32) == raw::Fault::none);
  CHECK(raw::string_value(raw::find(text, "user_email")) == full.user_email);
  CHECK(raw::find(text, "request_body") == "{\"a\":  [1.0,  9007199254740993]}");
  CHECK(raw::find(text, "duration_ms") == "12");
  CHECK(raw::find(text, "policy_id") == "null");
  CHECK(raw::find(text, "target_name").empty());
}

TEST_CASE("a file rotates, keeps what it shall, and is made again when it was moved") {
  const Directory directory;
  const std::string file = directory.path + "/rows.jsonl";
  auto inner = std::make_shared<KeptRows>();
  auto sink = open(inner, file, 1000);
  REQUIRE(sink);
  struct stat made {};
  REQUIRE(::stat(file.c_str(), &made) == 0);
  CHECK((made.st_mode & 0777) == 0600);
  for (int i = 0; i < 30; ++i) CHECK((*sink)->append({row(std::to_string(i))}));
  CHECK(inner->rows.size() == 30);
  CHECK(content(file).size() <= 1000);
  CHECK(content(file + ".1").size() <= 1000);
  CHECK(!content(file + ".2").empty());
  CHECK(::access((file + ".3").c_str(), F_OK) != 0);
  REQUIRE(::rename(file.c_str(), (file + ".moved").c_str()) == 0);
  CHECK((*sink)->append({row("after")}));
  CHECK(content(file) == audit_json(row("after")) + "\n");
  REQUIRE(::unlink(file.c_str()) == 0);
  CHECK((*sink)->append({row("again")}));
  CHECK(content(file) == audit_json(row("again")) + "\n");
  CHECK(*(*sink)->purge({}) == 7);
}

TEST_CASE("what is not stored is not exported; what is not exported is taken back and tried again") {
  const Directory directory;
  const std::string file = directory.path + "/rows.jsonl";
  auto inner = std::make_shared<KeptRows>();
  auto sink = open(inner, file);
  REQUIRE(sink);
  inner->broken = true;
  CHECK_FALSE((*sink)->append({row("1")}));
  CHECK(content(file).empty());
  inner->broken = false;
  CHECK((*sink)->append({row("1")}));
  const std::string first = content(file);
  // A limit on the size of files stands for a disk that fills up in the middle of a line.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit tight = before;
  tight.rlim_cur = first.size() + 50;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
  const Status full = (*sink)->append({row("2")});
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK_FALSE(full);
  CHECK(full.error().reason == "audit_export_failed");
  CHECK(content(file) == first);
  CHECK((*sink)->append({row("2")}));
  CHECK(content(file) == first + audit_json(row("2")) + "\n");

  auto away = open(inner, "/dev/full");
  REQUIRE(away);
  CHECK_FALSE((*away)->append({row("3")}));
}

TEST_CASE("syslog: priority and name, a daemon that restarts, rows too long for it") {
  const Directory directory;
  const std::string path = directory.path + "/log";
  const auto listen = [&] {
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return fd;
  };
  const auto next = [](int fd) {
    std::string out(1 << 16, '\0');
    const ssize_t size = ::recv(fd, out.data(), out.size(), MSG_DONTWAIT);
    out.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return out;
  };
  auto inner = std::make_shared<KeptRows>();
  CHECK_FALSE(open(inner, "syslog:" + path));
  int daemon = listen();
  auto sink = open(inner, "syslog:" + path);
  REQUIRE(sink);
  CHECK((*sink)->append({row("1"), row("2")}));
  CHECK(next(daemon) == "<86>mcpgw[" + std::to_string(::getpid()) + "]: " + audit_json(row("1")));
  CHECK(next(daemon).find(R"("id":"2")") != std::string::npos);
  ::close(daemon);
  ::unlink(path.c_str());
  CHECK_FALSE((*sink)->append({row("3")}));
  daemon = listen();
  CHECK((*sink)->append({row("3")}));
  CHECK(next(daemon).find(R"("id":"3")") != std::string::npos);
  CHECK((*sink)->append({row("4", "{\"a\":\"" + std::string(1 << 20, 'x') + "\"}")}));
  const std::string cut = next(daemon);
  CHECK(cut.find(R"("id":"4")") != std::string::npos);
  CHECK(cut.find("request_body") == std::string::npos);
  CHECK(cut.back() == '}');
  ::close(daemon);
}

TEST_CASE("what cannot be opened is told") {
  const auto made = open(std::make_shared<KeptRows>(), "/nonexistent/rows.jsonl");
  REQUIRE_FALSE(made);
  CHECK(made.error().field == "audit.export");
}
