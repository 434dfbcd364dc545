#include "support.hpp"

#include <cstdlib>

#include "mcpgw/version.hpp"

namespace mcpgw::capi {

namespace {

// The numbers of the header are those of ErrorCode, counted from one.
static_assert(static_cast<int>(ErrorCode::invalid_argument) + 1 == MCPGW_INVALID_ARGUMENT);
static_assert(static_cast<int>(ErrorCode::conflict) + 1 == MCPGW_CONFLICT);
static_assert(static_cast<int>(ErrorCode::unsupported) + 1 == MCPGW_UNSUPPORTED);
static_assert(static_cast<int>(ErrorCode::internal) + 1 == MCPGW_INTERNAL);

ErrorCode code_of(mcpgw_status status) noexcept {
  if (status <= MCPGW_OK || status > MCPGW_INTERNAL) return ErrorCode::internal;
  return static_cast<ErrorCode>(static_cast<int>(status) - 1);
}

std::string text_member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

mcpgw_status status_of(ErrorCode code) noexcept {
  return static_cast<mcpgw_status>(static_cast<int>(code) + 1);
}

char* copy_out(std::string_view text) noexcept {
  auto* out = static_cast<char*>(std::malloc(text.size() + 1));
  if (out == nullptr) return nullptr;
  if (!text.empty()) std::memcpy(out, text.data(), text.size());
  out[text.size()] = '\0';
  return out;
}

mcpgw_status report(const Error& error, char** out_error) noexcept {
  if (out_error != nullptr) {
    try {
      Json object{{"code", to_string(error.code)}, {"reason", error.reason}, {"message", error.message}};
      if (!error.field.empty()) object["field"] = error.field;
      *out_error = copy_out(detail::dump_json(object));
    } catch (...) {
      *out_error =
          copy_out(R"({"code":"internal","reason":"out_of_memory","message":"There is not enough memory"})");
    }
  }
  return status_of(error.code);
}

Error error_of(mcpgw_status status, const mcpgw_reply& reply, const char* reason) {
  Error out(code_of(status), reason, "The host's callback failed");
  const auto given = detail::parse_json(reply.text);
  if (!given || !given->is_object()) return out;
  if (auto text = text_member(*given, "reason"); !text.empty()) out.reason = std::move(text);
  if (auto text = text_member(*given, "message"); !text.empty()) out.message = std::move(text);
  out.field = text_member(*given, "field");
  return out;
}

Error invalid(std::string reason, std::string message, std::string field) {
  return {ErrorCode::invalid_argument, std::move(reason), std::move(message), std::move(field)};
}

// --- CallbackThreads
// ----------------------------------------------------------------------------------------

bool CallbackThreads::post(std::function<void()>& work) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return false;
  queue_.push_back(std::move(work));
  if (idle_ < queue_.size() && threads_.size() < kThreads) threads_.emplace_back([this] { run(); });
  ready_.notify_one();
  return true;
}

void CallbackThreads::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    --idle_;
    if (queue_.empty()) return;  // stopping
    auto work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    work = nullptr;  // what it holds ends before the lock is taken
    lock.lock();
  }
}

void CallbackThreads::stop() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    threads.swap(threads_);
  }
  ready_.notify_all();
  for (auto& thread : threads) thread.join();
}

// --- Strand
// -----------------------------------------------------------------------------------------------------

void Strand::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    if (running_) return;
    running_ = true;
  }
  std::function<void()> turn = [self = shared_from_this()] { self->drain(); };
  if (!threads_->post(turn)) turn();
}

void Strand::drain() {
  // A long queue must not keep a thread from others: after a few it goes to the end of the line.
  for (int turn = 0; turn < 32; ++turn) {
    std::function<void()> work;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) {
        running_ = false;
        return;
      }
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
  std::function<void()> next = [self = shared_from_this()] { self->drain(); };
  if (!threads_->post(next)) next();
}

}  // namespace mcpgw::capi

using namespace mcpgw;

uint32_t mcpgw_version_number(void) {
  static const uint32_t number = [] {
    uint32_t parts[3] = {0, 0, 0};
    std::size_t at = 0;
    for (const char c : std::string_view(version())) {
      if (c == '.' && at < 2)
        ++at;
      else if (c >= '0' && c <= '9')
        parts[at] = parts[at] * 10 + static_cast<uint32_t>(c - '0');
      else
        break;
    }
    return parts[0] * 1000000 + parts[1] * 1000 + parts[2];
  }();
  return number;
}

const char* mcpgw_version(void) {
  static const std::string text(version());
  return text.c_str();
}

const char* mcpgw_status_name(mcpgw_status status) {
  if (status == MCPGW_OK) return "ok";
  if (status < MCPGW_OK || status > MCPGW_INTERNAL) return "internal";
  return to_string(static_cast<ErrorCode>(static_cast<int>(status) - 1));
}

void mcpgw_free(char* text) { std::free(text); }

void mcpgw_reply_set(mcpgw_reply* reply, const char* text, size_t size) {
  if (reply == nullptr) return;
  try {
    reply->text.assign(capi::view(text, size));
  } catch (...) {
    reply->text.clear();  // read as an answer that makes no sense
  }
}
