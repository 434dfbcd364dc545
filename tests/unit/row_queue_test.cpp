// RowQueue: a row comes out as it went in, whatever its size and however the queue is used.
#include "observability/row_queue.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

/// Each member has a value of its own.
AuditRecord row_of(int number, std::size_t body) {
  const auto text = [&](const char* name) { return name + std::string(" ") + std::to_string(number); };
  AuditRecord out;
  out.kind = text("kind");
  out.created_at = Time(Duration(1'700'000'000'000'000 + number));
  out.session_id = text("session");
  out.user_id = text("user");
  out.user_email = text("email");
  out.method = text("method");
  out.target_name = text("target");
  out.tool = text("tool");
  out.decision = text("decision");
  out.policy_id = text("policy");
  out.policy_name = number % 2 == 0 ? "" : text("policy name");
  out.response_status = 200 + number;
  out.error_code = text("error");
  out.duration_ms = -number;
  out.bytes_in = number * 3;
  out.bytes_out = std::int64_t{number} << 40;
  out.client_ip = text("ip");
  out.client_name = text("client");
  out.trace_id = text("trace");
  out.request_body = std::string(body, static_cast<char>('a' + number % 26));
  return out;
}

void check_same(const AuditRecord& a, const AuditRecord& b) {
  CHECK(a.kind == b.kind);
  CHECK(a.created_at == b.created_at);
  CHECK(a.session_id == b.session_id);
  CHECK(a.user_id == b.user_id);
  CHECK(a.user_email == b.user_email);
  CHECK(a.method == b.method);
  CHECK(a.target_name == b.target_name);
  CHECK(a.tool == b.tool);
  CHECK(a.decision == b.decision);
  CHECK(a.policy_id == b.policy_id);
  CHECK(a.policy_name == b.policy_name);
  CHECK(a.response_status == b.response_status);
  CHECK(a.error_code == b.error_code);
  CHECK(a.duration_ms == b.duration_ms);
  CHECK(a.bytes_in == b.bytes_in);
  CHECK(a.bytes_out == b.bytes_out);
  CHECK(a.client_ip == b.client_ip);
  CHECK(a.client_name == b.client_name);
  CHECK(a.trace_id == b.trace_id);
  CHECK(a.request_body == b.request_body);
}

/// From nothing to more than a piece of the queue holds.
std::size_t body_of(int number) {
  return number % 97 == 96 ? 300'000 : static_cast<std::size_t>(number % 977);
}

}  // namespace

TEST_CASE("rows come out in order, as they went in, in memory that is used again") {
  RowQueue queue, other;
  AuditRecord out = row_of(99, 10);  // nothing of it is left
  int in = 0, seen = 0;
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 1 + round * 13 % 71; ++i, ++in) queue.push(row_of(in, body_of(in)));
    if (round % 3 == 2) {  // as the writer does: all at once, while more comes in
      queue.swap(other);
      CHECK(queue.empty());
      const auto late = row_of(in, body_of(in));
      queue.push(late);
      while (!other.empty()) {
        other.pop(out);
        check_same(out, row_of(seen, body_of(seen)));
        ++seen;
      }
      queue.pop(out);
      check_same(out, late);
      seen = ++in;
    } else if (round % 3 == 0) {
      for (int half = static_cast<int>(queue.size()) / 2; half > 0; --half, ++seen) {
        queue.pop(out);
        check_same(out, row_of(seen, body_of(seen)));
      }
    }
    CHECK(queue.size() == static_cast<std::size_t>(in - seen));
  }
  CHECK(seen > 500);
}
