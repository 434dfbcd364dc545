// InstanceLedger: which processes this gateway runs, written down in storage. A child ends with the gateway
// (PR_SET_PDEATHSIG), but what it has started itself does not: after a gateway was killed, the next one reads
// what was written and ends what is left.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "mcpgw/gateway.hpp"

namespace mcpgw::detail {

/// Safe from any thread. Made with std::make_shared.
class InstanceLedger : public std::enable_shared_from_this<InstanceLedger> {
 public:
  using Log = std::function<void(LogLevel, std::string message)>;
  /// Runs work that blocks; false when it cannot.
  using Run = std::function<bool(std::function<void()>)>;
  InstanceLedger(std::shared_ptr<Repository> repository, Run run, Log log);

  /// Ends what gateways that are gone have left running on this system, and removes rows about what is over.
  /// Returns how many groups were ended. Blocks.
  int end_leftovers();

  /// One process. What becomes of it does not depend on whether it could be written down.
  class Entry {
   public:
    Entry(std::shared_ptr<InstanceLedger> ledger, std::string target_id)
        : ledger_(std::move(ledger)), target_id_(std::move(target_id)) {}
    /// It runs. Blocks.
    void started(int pid);
    /// It was reaped; `done` is called when that is written down, at once when there is nothing to write.
    void ended(std::function<void()> done);

   private:
    void remove(const std::string& id) const;

    const std::shared_ptr<InstanceLedger> ledger_;
    const std::string target_id_;
    std::mutex mutex_;  // guards what follows
    std::string id_;
    bool ended_ = false;
  };
  std::shared_ptr<Entry> entry(std::string target_id) {
    return std::make_shared<Entry>(shared_from_this(), std::move(target_id));
  }

 private:
  const std::shared_ptr<Repository> repository_;
  const Run run_;
  const Log log_;
  const std::string space_;
};

}  // namespace mcpgw::detail
