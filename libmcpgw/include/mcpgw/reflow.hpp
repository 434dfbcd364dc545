// Taking over what a Reflow Gateway has stored. Component mcpgw::postgres.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "mcpgw/audit.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw {

struct ReflowOptions {
  std::string url;             ///< its database, as in PostgresOptions. Only read
  std::string encryption_key;  ///< the 32 bytes of its key
  /// Leave its policy "Default Allow All" as it is; otherwise it is taken over disabled.
  bool keep_allow_all = false;
  bool logs = false;  ///< its request log too
};

/// What became of one row.
struct ReflowLine {
  enum class Outcome { taken, changed, skipped };
  Outcome outcome = Outcome::taken;
  std::string kind;  ///< "user", "target", "token", "env", "policy", "log"
  std::string name;  ///< how people know it; never a value
  std::string note;  ///< what was changed, or why it was skipped
};

struct ReflowSummary {
  std::uint64_t taken = 0;  ///< these include the changed ones
  std::uint64_t changed = 0;
  std::uint64_t skipped = 0;
};

/// Reads one moment of the database at `options.url` and writes it into the repository that `into` opens; its
/// clock is replaced, so that creation times are kept. Ids are kept; a row whose id is there already is
/// skipped, so that an import may be repeated. For a dry run, give it a copy in memory. `report` is called
/// for each row, in order, from this thread. Errors: those of postgres.hpp for the source; not_found
/// "no_reflow"; invalid_argument "wrong_key" when the key opens none of the stored values (nothing is written
/// then); those of Repository.
Result<ReflowSummary> import_reflow(const ReflowOptions& options, RepositoryOptions into, AuditSink& audit,
                                    const std::function<void(const ReflowLine&)>& report);

}  // namespace mcpgw
