#include "gateway/client_streams.hpp"

#include "base/text.hpp"
#include "gateway/client_reply.hpp"
#include "protocol/message.hpp"

namespace mcpgw::detail {
namespace {

std::string make_epoch(Random& random) {
  std::string bytes(6, '\0');
  random.fill(bytes.data(), bytes.size());
  return to_hex(bytes);
}

}  // namespace

ClientStreams::ClientStreams(ClientTransport transport, Random& random)
    : transport_(transport), epoch_(make_epoch(random)), log_(epoch_, 0) {}

void ClientStreams::open(std::shared_ptr<ResponseStream> stream, const Principal& principal,
                         const std::optional<EventId>& last, bool prime) {
  std::shared_ptr<ResponseStream> old;
  {
    const std::lock_guard lock(mutex_);
    old = std::move(stream_);
    stream_ = std::move(stream);
    principal_ = principal;
    if (transport_ == ClientTransport::streamable_http) {
      // An id that another process gave says nothing about what this one has sent.
      const bool ours = last && last->epoch == epoch_ && last->stream == 0;
      std::string text = log_.after(ours ? last->number : delivered_);
      if (prime && text.empty()) text = log_.prime();
      if (text.empty() || stream_->write(std::move(text))) delivered_ = log_.last();
    }
  }
  if (old) old->close();
}

bool ClientStreams::send(const std::string& message) {
  const std::lock_guard lock(mutex_);
  if (transport_ == ClientTransport::http_sse) {
    if (stream_ && stream_->write(sse_event(message, {}, "message"))) return true;
    stream_ = nullptr;
    return false;
  }
  std::string text = log_.add(message);
  if (!stream_) return true;
  if (stream_->write(std::move(text)))
    delivered_ = log_.last();
  else
    stream_ = nullptr;
  return true;
}

bool ClientStreams::gone(const ResponseStream* stream) {
  const std::lock_guard lock(mutex_);
  if (stream_.get() != stream) return false;
  stream_ = nullptr;
  principal_.reset();
  return true;
}

ClientStreams::Opening::Opening(std::shared_ptr<ClientStreams> streams) : streams_(std::move(streams)) {
  const std::lock_guard lock(streams_->mutex_);
  ++streams_->opening_;
}

ClientStreams::Opening::~Opening() {
  const std::lock_guard lock(streams_->mutex_);
  --streams_->opening_;
}

std::size_t ClientStreams::count() const {
  std::size_t own = 0;
  {
    const std::lock_guard lock(mutex_);
    own = stream_ || opening_ > 0 ? 1 : 0;
  }
  return own + resumed();
}

bool ClientStreams::is_open() const {
  const std::lock_guard lock(mutex_);
  return stream_ != nullptr;
}

std::optional<Principal> ClientStreams::principal() const {
  const std::lock_guard lock(mutex_);
  return stream_ ? principal_ : std::nullopt;
}

void ClientStreams::close() {
  std::shared_ptr<ResponseStream> stream;
  {
    const std::lock_guard lock(mutex_);
    stream = std::exchange(stream_, nullptr);
    principal_.reset();
  }
  if (stream) stream->close();
}

bool ClientStreams::keep_alive() {
  const std::lock_guard lock(mutex_);
  if (!stream_) return false;
  if (stream_->write(": keep-alive\n\n")) return true;
  stream_ = nullptr;
  return false;
}

std::uint64_t ClientStreams::add(std::shared_ptr<PostReply> reply) {
  const std::lock_guard lock(mutex_);
  if (next_post_ == 0) return 0;  // the session is over
  const std::uint64_t number = next_post_++;
  posts_.emplace(number, Post{std::move(reply), std::nullopt, 0});
  return number;
}

std::shared_ptr<PostReply> ClientStreams::find(const EventId& id) const {
  const std::lock_guard lock(mutex_);
  if (id.epoch != epoch_) return nullptr;
  const auto it = posts_.find(id.stream);
  return it == posts_.end() ? nullptr : it->second.reply;
}

ClientStreams::Posts::iterator ClientStreams::drop_locked(Posts::iterator at, std::vector<Post>& dropped) {
  --finished_count_;
  finished_bytes_ -= at->second.bytes;
  dropped.push_back(std::move(at->second));
  return posts_.erase(at);
}

void ClientStreams::finished(std::uint64_t number, std::size_t bytes) {
  std::vector<Post> dropped;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  const auto it = posts_.find(number);
  if (it == posts_.end() || it->second.finished) return;
  it->second.finished = std::chrono::steady_clock::now();
  it->second.bytes = bytes;
  finished_bytes_ += it->second.bytes;
  ++finished_count_;
  for (auto at = posts_.begin();
       at != posts_.end() && (finished_count_ > kMaxFinished || finished_bytes_ > kMaxFinishedBytes);) {
    if (!at->second.finished) {
      ++at;
      continue;
    }
    at = drop_locked(at, dropped);
  }
}

void ClientStreams::sweep(std::chrono::steady_clock::time_point now) {
  std::vector<Post> dropped;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  if (finished_count_ == 0) return;
  for (auto at = posts_.begin(); at != posts_.end();) {
    if (!at->second.finished || now - *at->second.finished < kKeepFinished) {
      ++at;
      continue;
    }
    at = drop_locked(at, dropped);
  }
}

std::vector<std::shared_ptr<PostReply>> ClientStreams::posts() const {
  std::vector<std::shared_ptr<PostReply>> out;
  const std::lock_guard lock(mutex_);
  out.reserve(posts_.size());
  for (const auto& [number, post] : posts_) out.push_back(post.reply);
  return out;
}

std::size_t ClientStreams::resumed() const {
  std::size_t out = 0;
  for (const auto& reply : posts()) out += reply->resumed_by().has_value();
  return out;
}

void ClientStreams::check_resumed(const Authenticator& authenticator) {
  for (const auto& reply : posts())
    if (const auto principal = reply->resumed_by(); principal && !authenticator.still_valid(*principal))
      reply->disconnect();
}

void ClientStreams::clear() {
  std::map<std::uint64_t, Post> posts;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  posts.swap(posts_);
  next_post_ = 0;
  finished_count_ = finished_bytes_ = 0;
  log_.clear();
}

}  // namespace mcpgw::detail
