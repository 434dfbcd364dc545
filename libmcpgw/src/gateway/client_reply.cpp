#include "gateway/client_reply.hpp"

#include "base/text.hpp"
#include "json/raw.hpp"
#include "protocol/message.hpp"

namespace mcpgw::detail {
namespace {

constexpr auto kSilence = std::chrono::milliseconds(250);
constexpr auto kKeepAlive = std::chrono::milliseconds(14000);

/// For a client that was away when an answer came which is too large to be kept for it.
std::string not_kept(const std::string& message) {
  return make_error(raw::find(message, "id"), rpc::kInternalError,
                    "The answer was too large to be kept for a stream that is resumed",
                    R"({"code":"response_too_large"})");
}

/// How well a media range names a type: 0 not at all, 1 */*, 2 type/*, 3 exactly.
int matches(std::string_view range, std::string_view type) {
  if (range == "*/*") return 1;
  const auto slash = type.find('/');
  if (range.size() == slash + 2 && range.back() == '*' &&
      iequals(range.substr(0, slash + 1), type.substr(0, slash + 1)))
    return 2;
  return iequals(range, type) ? 3 : 0;
}

}  // namespace

Accepts read_accept(const std::string* header) {
  if (header == nullptr || *header == "application/json, text/event-stream" || trim(*header).empty())
    return {};
  int json = 0, sse = 0;
  Accepts out{false, false};
  for (const std::string& range : split(*header, ',')) {
    const std::string_view whole = trim(range);
    const std::string_view type = trim(whole.substr(0, whole.find(';')));
    // "q=0" refuses what it names.
    bool refused = false;
    for (std::string_view rest = whole; rest.find(';') != std::string_view::npos;) {
      rest.remove_prefix(rest.find(';') + 1);
      const std::string_view parameter = trim(rest.substr(0, rest.find(';')));
      if (starts_with_icase(parameter, "q=")) {
        const auto value = parameter.substr(2);
        refused = !value.empty() && value.find_first_not_of("0.") == std::string_view::npos;
      }
    }
    const auto decide = [&](int& best, bool& admitted, std::string_view ours) {
      const int level = matches(type, ours);
      if (level == 0 || level < best) return;
      admitted = level == best ? admitted || !refused : !refused;
      best = level;
    };
    decide(json, out.json, "application/json");
    decide(sse, out.sse, "text/event-stream");
  }
  return out;
}

PostReply::PostReply(Loop& loop, std::shared_ptr<Responder> responder, HttpHeaders headers, Options options)
    : loop_(loop),
      options_(std::move(options)),
      headers_(std::move(headers)),
      responder_(std::move(responder)),
      open_(options_.answers),
      answers_(options_.answers) {}

void PostReply::begin() {
  std::shared_ptr<Responder> responder;
  {
    const std::lock_guard lock(mutex_);
    responder = responder_;
  }
  if (!responder) return;
  responder->on_disconnect([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->lost(nullptr);
  });
}

void PostReply::watch() {
  const std::lock_guard lock(mutex_);
  if (!options_.accepts.sse || std::exchange(watched_, true) || open_ == 0) return;
  reminder_ = loop_.reminders().add(kSilence, weak_from_this());
}

void PostReply::on_reminder() {
  const std::lock_guard lock(mutex_);
  reminder_.reset();
  if (open_ == 0) return;
  if (!started_ && !gone_)
    start_locked();
  else if (stream_ && !stream_->write(": keep-alive\n\n"))
    stream_ = nullptr;
  reminder_ = loop_.reminders().add(kKeepAlive, weak_from_this());
}

bool PostReply::start_locked() {
  started_ = true;
  if (options_.streams) {
    number_ = options_.streams->add(shared_from_this());
    log_.emplace(options_.streams->epoch(), number_);
  }
  HttpResponse head;
  head.headers = std::move(headers_);
  head.headers.emplace_back("Content-Type", "text/event-stream");
  head.headers.emplace_back("X-Accel-Buffering", "no");
  if (log_ && options_.prime) head.body = log_->prime();
  stream_ = responder_->start(std::move(head));
  responder_ = nullptr;
  for (const std::string& one : std::exchange(answers_, {}))
    if (!one.empty()) deliver_locked(one, not_kept(one));
  return stream_ != nullptr;
}

void PostReply::deliver_locked(const std::string& message, const std::string& instead) {
  std::string text = log_ ? log_->add(message, instead) : sse_event(message);
  if (stream_ && !stream_->write(std::move(text))) stream_ = nullptr;
}

bool PostReply::emit(const std::string& message) {
  const std::lock_guard lock(mutex_);
  if (open_ == 0 || !options_.accepts.sse) return false;
  if (!started_ && (gone_ || !start_locked())) return false;
  deliver_locked(message, {});
  // What is kept reaches a client that comes back.
  return stream_ != nullptr || log_;
}

void PostReply::answer(std::string message, std::size_t at) {
  std::unique_ptr<InFlight> in_flight;
  std::shared_ptr<ResponseStream> stream;
  std::shared_ptr<Responder> responder;
  HttpResponse response;
  std::size_t bytes = 0;
  std::uint64_t number;
  {
    const std::lock_guard lock(mutex_);
    if (open_ == 0) return;
    --open_;
    if (started_)
      deliver_locked(message, not_kept(message));
    else
      answers_.at(at) = std::move(message);
    if (open_ > 0) return;
    // Elsewhere it is left to come and find nothing to do.
    if (reminder_ && loop_.here()) loop_.reminders().cancel(*reminder_);
    reminder_.reset();
    in_flight = std::move(in_flight_);
    if (!started_ && !options_.accepts.json && !gone_) start_locked();
    if (started_) {
      stream = std::exchange(stream_, nullptr);
      resumed_by_.reset();
      resumed_stream_ = nullptr;
      if (log_) bytes = log_->bytes();
    } else {
      responder = std::exchange(responder_, nullptr);
      response.headers = std::move(headers_);
      response.headers.emplace_back("Content-Type", "application/json");
      if (options_.batch) {
        response.body = "[";
        for (const std::string& one : answers_) {
          if (response.body.size() > 1) response.body += ',';
          response.body += one;
        }
        response.body += ']';
      } else {
        response.body = std::move(answers_.front());
      }
    }
    number = number_;
  }
  if (responder) responder->send(std::move(response));
  if (stream) stream->close();
  if (options_.streams && number != 0) options_.streams->finished(number, bytes);
}

void PostReply::resume(std::shared_ptr<ResponseStream> stream, const Principal& principal,
                       std::uint64_t after) {
  std::shared_ptr<ResponseStream> old;
  bool ended;
  {
    const std::lock_guard lock(mutex_);
    ended = open_ == 0;
    const std::string missed = log_ ? log_->after(after) : std::string();
    if (!missed.empty() && !stream->write(missed)) return;
    if (!ended) {
      old = std::exchange(stream_, stream);
      gone_ = false;
      resumed_by_ = principal;
      resumed_stream_ = stream.get();
      // The POST's own count ends with its connection.
      if (!in_flight_ && options_.core) in_flight_ = std::make_unique<InFlight>(options_.core);
    }
  }
  if (old) old->close();
  if (ended) stream->close();
}

void PostReply::lost(const ResponseStream* stream) {
  bool waits;
  std::shared_ptr<ResponseStream> dead;
  {
    const std::lock_guard lock(mutex_);
    if (open_ == 0 || gone_) return;
    // A connection that was replaced by another is no loss.
    if (stream == nullptr ? resumed_by_.has_value() : resumed_stream_ != stream) return;
    gone_ = true;
    dead = std::exchange(stream_, nullptr);
    resumed_by_.reset();
    resumed_stream_ = nullptr;
    ++absence_;
    // An id must have reached the client, or it has nothing to come back with.
    waits = log_ && (options_.prime || log_->last() > 0);
    if (waits && !in_flight_ && options_.core) in_flight_ = std::make_unique<InFlight>(options_.core);
  }
  if (dead) dead->close();
  if (waits)
    wait_for_client();
  else if (options_.on_gone)
    options_.on_gone();
}

void PostReply::wait_for_client() {
  std::uint64_t absence;
  {
    const std::lock_guard lock(mutex_);
    absence = absence_;
  }
  const auto grace =
      options_.core ? options_.core->options.session.resume_grace : std::chrono::milliseconds(0);
  loop_.dispatch([weak = weak_from_this(), absence, grace] {
    const auto self = weak.lock();
    if (!self) return;
    auto timer = std::make_shared<SteadyTimer>(self->loop_.io(), grace);
    timer->async_wait([weak, timer, absence](const boost::system::error_code& error) {
      const auto waiting = weak.lock();
      if (error || !waiting) return;
      {
        const std::lock_guard lock(waiting->mutex_);
        if (waiting->open_ == 0 || !waiting->gone_ || waiting->absence_ != absence) return;
      }
      if (waiting->options_.on_gone) waiting->options_.on_gone();
    });
  });
}

void PostReply::disconnect() {
  const ResponseStream* stream;
  {
    const std::lock_guard lock(mutex_);
    stream = resumed_stream_;
  }
  if (stream != nullptr) lost(stream);
}

std::optional<Principal> PostReply::resumed_by() const {
  const std::lock_guard lock(mutex_);
  return resumed_by_;
}

void SessionStreamReply::begin() {
  std::shared_ptr<Responder> responder;
  {
    const std::lock_guard lock(mutex_);
    responder = std::exchange(responder_, nullptr);
  }
  if (!responder) return;
  HttpResponse accepted;
  accepted.status = 202;
  responder->send(std::move(accepted));
}

void SessionStreamReply::answer(std::string message, std::size_t /*at*/) {
  streams_->send(message);
  std::unique_ptr<InFlight> ended;
  const std::lock_guard lock(mutex_);
  if (open_ > 0 && --open_ == 0) ended = std::move(in_flight_);
}

}  // namespace mcpgw::detail
