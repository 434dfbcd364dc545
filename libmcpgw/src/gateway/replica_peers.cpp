#include "gateway/replica_peers.hpp"

namespace mcpgw::detail {

std::vector<std::string> ReplicaPeers::update(const std::vector<ReplicaRecord>& stored, SteadyTime now) {
  const std::lock_guard lock(mutex_);
  // Whoever could not read for a while knows nothing about that while: the others may have been kept from
  // writing, too.
  const bool blind = read_ == SteadyTime{} || now - read_ > lease_ * 2 / 3;
  std::map<std::string, Peer> peers;
  std::vector<std::string> dead;
  for (const ReplicaRecord& record : stored) {
    Peer peer{record.address, record.beat, now};
    if (const auto it = peers_.find(record.id);
        it != peers_.end() && it->second.beat == record.beat && !blind)
      peer.seen = it->second.seen;
    if (now - peer.seen > lease_ * kRemoveAfter) dead.push_back(record.id);
    peers.emplace(record.id, std::move(peer));
  }
  peers_ = std::move(peers);
  read_ = now;
  return dead;
}

void ReplicaPeers::remove(const std::string& id) {
  const std::lock_guard lock(mutex_);
  peers_.erase(id);
}

std::optional<std::string> ReplicaPeers::address(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto it = peers_.find(id);
  if (it == peers_.end() || read_ - it->second.seen > lease_) return std::nullopt;
  return it->second.address;
}

std::vector<std::pair<std::string, std::string>> ReplicaPeers::others(const std::string& without) const {
  std::vector<std::pair<std::string, std::string>> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, peer] : peers_)
    if (id != without && read_ - peer.seen <= lease_) out.emplace_back(id, peer.address);
  return out;
}

bool ReplicaPeers::knows(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  return peers_.contains(id);
}

}  // namespace mcpgw::detail
