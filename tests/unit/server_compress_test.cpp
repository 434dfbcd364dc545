// gzip of large JSON answers.
#include <doctest/doctest.h>
#include <zlib.h>

#include "server/compress.hpp"
#include "unit/server_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
namespace server = mcpgw::detail::server;

namespace {

std::string gunzip(const std::string& bytes) {
  z_stream stream{};
  REQUIRE(::inflateInit2(&stream, 15 + 16) == Z_OK);
  std::string out(64 * 1024 * 1024, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = ::inflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  ::inflateEnd(&stream);
  CHECK(result == Z_STREAM_END);
  return out;
}

HttpResponse json(std::size_t size) {
  HttpResponse response;
  response.headers = {{"Content-Type", "application/json"}};
  response.body = "[";
  for (int i = 0; response.body.size() + 1 < size; ++i)
    response.body += "{\"name\":\"tool_" + std::to_string(i) + "\"},";
  response.body.resize(size - 1);
  response.body += "]";
  return response;
}

/// What comes of `response` when it is sent on a loop to a client that says `accepts`.
RawAnswer answer(const HttpResponse& response, const std::string& accepts, bool head = false) {
  const Site site([&](HttpRequest, std::shared_ptr<Responder> responder) { responder->send(response); });
  RawClient client = site.connect();
  client.send((head ? "HEAD" : "GET") + std::string(" / HTTP/1.1\r\nHost: a\r\n") +
              (accepts.empty() ? "" : "Accept-Encoding: " + accepts + "\r\n") + "\r\n" + get("/second"));
  auto got = client.read(head);
  REQUIRE(got);
  CHECK(client.read());  // the connection goes on
  return *got;
}

}  // namespace

TEST_CASE("large JSON is sent as gzip to those who ask, and caches are told") {
  for (const std::size_t size :
       {server::kCompressFrom, server::kCompressOnLoop, std::size_t{8 * 1024 * 1024}}) {
    const HttpResponse response = json(size);
    const RawAnswer zipped = answer(response, "gzip, deflate, br");
    CHECK(zipped.header("Content-Encoding") == "gzip");
    CHECK(zipped.header("Vary") == "Accept-Encoding");
    CHECK(zipped.header("Content-Length") == std::to_string(zipped.body.size()));
    CHECK(zipped.body.size() < size / 2);
    CHECK((gunzip(zipped.body) == response.body));
    const RawAnswer plain = answer(response, "");
    CHECK(plain.header("Content-Encoding") == "(none)");
    CHECK(plain.header("Vary") == "Accept-Encoding");
    CHECK((plain.body == response.body));
  }
  // HEAD speaks of the plain body.
  const RawAnswer head = answer(json(100000), "gzip", true);
  CHECK(head.header("Content-Length") == "100000");
  CHECK(head.header("Content-Encoding") == "(none)");
}

TEST_CASE("what stays as it is") {
  const auto untouched = [](HttpResponse response) {
    const RawAnswer got = answer(response, "gzip");
    CHECK((got.body == response.body));
    CHECK(got.header("Vary") == "(none)");
    return got.header("Content-Encoding");
  };
  CHECK(untouched(json(server::kCompressFrom - 1)) == "(none)");
  HttpResponse response = json(100000);
  response.set_header("Content-Type", "text/plain");
  CHECK(untouched(response) == "(none)");
  response.set_header("Content-Type", "application/octet-stream");
  CHECK(untouched(response) == "(none)");
  response = json(100000);
  response.headers.emplace_back("ETag", "\"1\"");
  CHECK(untouched(response) == "(none)");
  response = json(100000);
  response.headers.emplace_back("Cache-Control", "private, No-Transform");
  CHECK(untouched(response) == "(none)");
  response = json(100000);
  response.headers.emplace_back("Content-Encoding", "br");
  CHECK(untouched(response) == "br");
  // Random bytes do not shrink.
  response = json(100000);
  for (std::size_t i = 0, x = 1; i < response.body.size();
       ++i, x = x * 6364136223846793005u + 1442695040888963407u)
    response.body[i] = static_cast<char>(x >> 56);
  const RawAnswer noise = answer(response, "gzip");
  CHECK((noise.body == response.body));
  CHECK(noise.header("Content-Encoding") == "(none)");
}

TEST_CASE("JSON by any name; streams never") {
  for (const char* type :
       {"application/json; charset=utf-8", "Application/JSON", "application/problem+json"}) {
    HttpResponse response = json(20000);
    response.set_header("Content-Type", type);
    CHECK(answer(response, "gzip").header("Content-Encoding") == "gzip");
  }
  const Site site([](HttpRequest, std::shared_ptr<Responder> responder) {
    HttpResponse head = json(20000);
    responder->start(head)->close();
  });
  RawClient client = site.connect();
  client.send(get("/", "Accept-Encoding: gzip\r\n"));
  CHECK(client.read()->header("Content-Encoding") == "(none)");
}

TEST_CASE("an answer that a worker compresses may come after the client, or after the server") {
  Site site(
      [](HttpRequest, std::shared_ptr<Responder> responder) { responder->send(json(4 * 1024 * 1024)); });
  for (int i = 0; i < 20; ++i) {
    RawClient client = site.connect();
    client.send(get("/", "Accept-Encoding: gzip\r\n"));
    if (i % 2 == 0) client.reset();
  }
  RawClient last = site.connect();
  last.send(get("/", "Accept-Encoding: gzip\r\n"));
  CHECK(eventually([&] { return site.server->statistics().requests >= 1; }));
  site.server->stop();
  CHECK(site.server->statistics().connections == 0);
}

TEST_CASE("who accepts gzip") {
  const auto accepts = [](HttpHeaders headers) { return server::accepts_gzip(headers); };
  const auto says = [](const char* value) { return server::accepts_gzip({{"accept-encoding", value}}); };
  CHECK_FALSE(accepts({}));
  for (const char* yes :
       {"gzip", "x-gzip", "GZIP", "br, gzip", "*", "gzip;q=0.5", "gzip ; q=0.001", "identity;q=0.5, gzip",
        "gzip;q=1.000", "gzip;Q=1", "deflate,,gzip", "identity;q=0, gzip;q=0.1"})
    CHECK_MESSAGE(says(yes), yes);
  for (const char* no :
       {"", "br", "deflate", "identity", "gzip;q=0", "gzip;q=0.000", "*;q=0", "gzip;q=0, *", "gzip;q=x",
        "gzip;level=9", "gzipped", "gzip;q=0.2, identity;q=0.5", "gzip;q=2", "gzip;q=0.0001"})
    CHECK_MESSAGE(!says(no), no);
  CHECK(accepts({{"Accept-Encoding", "br"}, {"Accept-Encoding", "gzip"}}));
}
