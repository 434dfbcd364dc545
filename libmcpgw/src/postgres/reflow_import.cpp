#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <utility>

#include "base/text.hpp"
#include "mcpgw/reflow.hpp"
#include "postgres/reflow_source.hpp"
#include "secrets/password.hpp"
#include "storage/model_text.hpp"

namespace mcpgw {

using namespace detail;            // NOLINT(*-using-namespace): the module's own internals
using namespace detail::postgres;  // NOLINT(*-using-namespace)

namespace {

constexpr const char* kAllowAll = "Default Allow All";

/// Says what time the row has that is being written.
class RowClock final : public Clock {
 public:
  Time now() const override { return Time(Duration(us_.load())); }
  Duration monotonic() const override { return system_->monotonic(); }
  void set(Time time) { us_ = (time == Time{} ? system_->now() : time).time_since_epoch().count(); }

 private:
  const std::shared_ptr<Clock> system_ = make_system_clock();
  std::atomic<std::int64_t> us_{system_->now().time_since_epoch().count()};
};

/// A target's name as ours may be; the same when it is one already.
std::string permitted_name(std::string_view name) {
  std::string out;
  for (const char c : trim(name)) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == ' ' || c == '.' || c == '_' || c == '-';
    if (!out.empty() || (good && c != ' ' && c != '.' && c != '_' && c != '-')) out += good ? c : '-';
  }
  return out.substr(0, 100);
}

class Import {
 public:
  Import(const ReflowOptions& options, ReflowSource& source, Repository& repository, RowClock& clock,
         AuditSink& audit, const std::function<void(const ReflowLine&)>& report)
      : options_(options),
        source_(source),
        repository_(repository),
        clock_(clock),
        audit_(audit),
        report_(report) {}

  Result<ReflowSummary> run() {
    for (const auto part :
         {&Import::users, &Import::targets, &Import::tokens, &Import::env, &Import::policies})
      if (auto ok = (this->*part)(); !ok) return ok.error();
    if (options_.logs)
      if (auto ok = logs(); !ok) return ok.error();
    return summary_;
  }

  /// Whether the key opens at least one value, or there is none.
  Result<bool> key_fits() {
    bool any = false;
    for (const auto& [table, column] : kSealed) {
      auto rows = source_.rows(table, "1");
      if (!rows) return rows.error();
      for (const auto& row : *rows) {
        const auto sealed = text_of(row, column);
        if (sealed.empty()) continue;
        if (open_reflow_value(options_.encryption_key, sealed)) return true;
        any = true;
      }
    }
    return !any;
  }

 private:
  static constexpr std::pair<const char*, const char*> kSealed[] = {
      {"targets", "default_encrypted_token"},
      {"user_target_tokens", "encrypted_token"},
      {"role_target_tokens", "encrypted_token"},
      {"group_target_tokens", "encrypted_token"},
      {"target_env_configs", "encrypted_value"}};

  void tell(ReflowLine::Outcome outcome, const char* kind, std::string name, std::string note = {}) {
    using Outcome = ReflowLine::Outcome;
    ++(outcome == Outcome::skipped ? summary_.skipped : summary_.taken);
    if (outcome == Outcome::changed) ++summary_.changed;
    report_({outcome, kind, std::move(name), std::move(note)});
  }
  void taken(const char* kind, std::string name, const std::string& note) {
    tell(note.empty() ? ReflowLine::Outcome::taken : ReflowLine::Outcome::changed, kind, std::move(name),
         note);
  }
  /// A failed write: skipped when the row is at fault, the end of the import when the storage is.
  Status refused(const char* kind, std::string name, const Error& error) {
    if (error.code == ErrorCode::unavailable || error.code == ErrorCode::data_loss ||
        error.code == ErrorCode::internal)
      return error;
    tell(ReflowLine::Outcome::skipped, kind, std::move(name),
         error.reason == "id_taken" ? "it is here already" : error.message);
    return {};
  }

  Status users() {
    auto rows = source_.rows("users", "created_at, id");
    if (!rows) return rows.error();
    for (const auto& row : *rows) {
      User user;
      user.id = text_of(row, "id");
      user.email = to_lower(trim(text_of(row, "email")));
      if (const auto role = text_of(row, "role"); !role.empty()) user.role = role;
      user.groups = texts_of(row, "groups");
      std::string note;
      if (const auto hash = text_of(row, "password_hash"); is_password_hash(hash))
        user.password_hash = hash;
      else
        note = "without a password: what stands for it is no hash that is known";
      if (user.email != text_of(row, "email"))
        note += (note.empty() ? "" : "; ") + std::string("email in lower case");
      emails_[user.id] = user.email;
      clock_.set(time_of(row, "created_at"));
      if (const auto made = repository_.create_user(user); !made) {
        if (auto ok = refused("user", user.email, made.error()); !ok) return ok;
        if (made.error().reason == "id_taken") users_.insert(user.id);
        continue;
      }
      users_.insert(user.id);
      taken("user", user.email, note);
    }
    return {};
  }

  Status targets() {
    auto rows = source_.rows("targets", "name, id");
    if (!rows) return rows.error();
    for (const auto& row : *rows) {
      Target target;
      std::string note;
      const auto given = text_of(row, "name");
      target.id = text_of(row, "id");
      target.name = permitted_name(given);
      if (target.name != given) note = "named \"" + target.name + "\" here";
      const auto transport = parse_text<TransportType>(text_of(row, "transport_type"));
      const auto auth = parse_text<AuthType>(text_of(row, "auth_type"));
      const auto state = text_of(row, "statefulness"), isolation = text_of(row, "isolation_boundary");
      if ((!transport && !text_of(row, "transport_type").empty()) || !auth) {
        tell(ReflowLine::Outcome::skipped, "target", given,
             "its transport or way of authentication is not known");
        continue;
      }
      if (transport) target.transport_type = *transport;
      target.auth_type = *auth;
      if (const auto known = parse_text<Statefulness>(state)) target.statefulness = *known;
      // A word that is not known must not let users share what they should not.
      target.isolation_boundary = isolation.empty()
                                      ? Isolation::shared
                                      : parse_text<Isolation>(isolation).value_or(Isolation::per_user);
      target.url = text_of(row, "url");
      target.command = text_of(row, "command");
      target.args = texts_of(row, "args");
      target.image = text_of(row, "image");
      target.health_path = text_of(row, "health_path");
      target.auth_header_name = text_of(row, "auth_header_name");
      if (const auto port = number_of(row, "port"); port != 0) target.port = static_cast<int>(port);
      target.enabled = flag_of(row, "enabled", true);
      clock_.set(time_of(row, "created_at"));
      const auto made = repository_.create_target(target);
      if (!made) {
        if (auto ok = refused("target", given, made.error()); !ok) return ok;
        if (made.error().reason != "id_taken") continue;
      } else {
        taken("target", given, note);
      }
      targets_[target.id] = given;
      if (const auto sealed = text_of(row, "default_encrypted_token"); !sealed.empty())
        if (auto ok = token(target.id, {Scope::everyone, {}}, sealed); !ok) return ok;
    }
    return {};
  }

  std::string place_of(const std::string& target_id, const ScopeRef& scope) const {
    const auto target = targets_.find(target_id);
    auto out = (target == targets_.end() ? target_id : target->second) + " for ";
    if (scope.scope == Scope::everyone) return out + "everyone";
    const auto email = emails_.find(scope.value);
    const bool known = scope.scope == Scope::user && email != emails_.end();
    return out + std::string(to_text(scope.scope)) + " " + (known ? email->second : scope.value);
  }
  /// Why a credential has no place here; empty: it has.
  std::string homeless(const std::string& target_id, const ScopeRef& scope) const {
    if (targets_.count(target_id) == 0) return "its target was not taken over";
    if (scope.scope == Scope::user && users_.count(scope.value) == 0) return "its user was not taken over";
    return {};
  }

  Status token(const std::string& target_id, const ScopeRef& scope, const std::string& sealed) {
    const auto name = place_of(target_id, scope);
    if (const auto why = homeless(target_id, scope); !why.empty()) {
      tell(ReflowLine::Outcome::skipped, "token", name, why);
      return {};
    }
    const auto plain = open_reflow_value(options_.encryption_key, sealed);
    if (!plain) {
      tell(ReflowLine::Outcome::skipped, "token", name, "the key does not open it");
      return {};
    }
    if (auto set = repository_.set_target_token(target_id, scope, *plain); !set)
      return refused("token", name, set.error());
    taken("token", name, {});
    return {};
  }

  Status tokens() {
    struct Kind {
      const char* table;
      const char* column;
      Scope scope;
    };
    for (const auto& [table, column, scope] :
         {Kind{"user_target_tokens", "user_id", Scope::user}, Kind{"role_target_tokens", "role", Scope::role},
          Kind{"group_target_tokens", "group_name", Scope::group}}) {
      auto rows = source_.rows(table, std::string("target_id, ") + column);
      if (!rows) return rows.error();
      for (const auto& row : *rows) {
        clock_.set(time_of(row, "created_at"));
        auto ok =
            token(text_of(row, "target_id"), {scope, text_of(row, column)}, text_of(row, "encrypted_token"));
        if (!ok) return ok;
      }
    }
    return {};
  }

  Status env() {
    auto rows = source_.rows("target_env_configs", "target_id, scope_type, scope_value, env_key");
    if (!rows) return rows.error();
    for (const auto& row : *rows) {
      const auto target_id = text_of(row, "target_id"), key = text_of(row, "env_key");
      const auto kind = parse_text<Scope>(text_of(row, "scope_type"));
      const ScopeRef scope{kind.value_or(Scope::everyone),
                           kind == Scope::everyone ? std::string() : text_of(row, "scope_value")};
      const auto name = key + " of " + place_of(target_id, scope);
      auto why = kind ? homeless(target_id, scope) : std::string("its scope is not known");
      const auto plain = open_reflow_value(options_.encryption_key, text_of(row, "encrypted_value"));
      if (why.empty() && !plain) why = "the key does not open it";
      if (!why.empty()) {
        tell(ReflowLine::Outcome::skipped, "env", name, why);
        continue;
      }
      const auto description = text_of(row, "description");
      clock_.set(time_of(row, "created_at"));
      const auto set = repository_.set_env(
          target_id, scope,
          {{key, *plain, description.empty() ? std::nullopt : std::optional(std::optional(description))}});
      if (!set) {
        if (auto ok = refused("env", name, set.error()); !ok) return ok;
        continue;
      }
      taken("env", name, {});
    }
    return {};
  }

  Status policies() {
    auto rows = source_.rows("authorization_policies", "priority DESC, name, id");
    auto subjects = source_.rows("policy_subjects", "policy_id, subject_type, subject_value");
    if (!rows || !subjects) return rows ? subjects.error() : rows.error();
    for (const auto& row : *rows)
      if (auto ok = policy(row, *subjects); !ok) return ok;
    return {};
  }

  Status policy(const Json& row, const std::vector<Json>& subjects) {
    Policy made;
    std::string note;
    const auto add_note = [&](const std::string& text) { note += (note.empty() ? "" : "; ") + text; };
    made.id = text_of(row, "id");
    made.name = text_of(row, "name");
    made.description = text_of(row, "description");
    made.target_id = text_of(row, "target_id");
    made.resource_pattern = text_of(row, "resource_pattern");
    made.priority = static_cast<int>(std::clamp<std::int64_t>(number_of(row, "priority"), -1000000, 1000000));
    made.enabled = flag_of(row, "enabled", true);
    const auto type = parse_text<ResourceType>(text_of(row, "resource_type"));
    const auto effect = parse_text<Effect>(text_of(row, "effect"));
    if ((!type && !text_of(row, "resource_type").empty()) || !effect) {
      tell(ReflowLine::Outcome::skipped, "policy", made.name, "its type or effect is not known");
      return {};
    }
    if (type) made.resource_type = *type;
    made.effect = *effect;
    for (const auto& subject : subjects) {
      if (text_of(subject, "policy_id") != made.id) continue;
      Subject one;
      const auto kind = parse_text<SubjectType>(text_of(subject, "subject_type"));
      one.value = text_of(subject, "subject_value");
      if (!kind || (*kind == SubjectType::user && users_.count(one.value) == 0)) {
        add_note("without a subject that is not here");
        continue;
      }
      one.type = *kind;
      if (one.type == SubjectType::everyone) one.value.clear();
      made.subjects.push_back(std::move(one));
    }
    if (made.name == kAllowAll && made.enabled && !options_.keep_allow_all) {
      made.enabled = false;
      add_note("disabled: it allows everyone everything");
    }
    if (const auto twin = twin_of(made)) {
      if (made.enabled && !twin->enabled) {
        auto enabled = *twin;
        enabled.enabled = true;
        if (auto done = repository_.update_policy(std::move(enabled)); !done)
          return refused("policy", made.name, done.error());
        taken("policy", made.name, "the one that is here already was enabled");
      } else {
        tell(ReflowLine::Outcome::skipped, "policy", made.name, "one like it is here already");
      }
      return {};
    }
    clock_.set(time_of(row, "created_at"));
    auto done = repository_.create_policy(made);
    if (!done && done.error().reason == "invalid_pattern" && made.effect == Effect::deny) {
      // Left out, it would permit what it was made to forbid.
      made.resource_pattern.clear();
      add_note("its pattern is not valid here: it denies every name");
      done = repository_.create_policy(made);
    }
    if (!done) return refused("policy", made.name, done.error());
    taken("policy", made.name, note);
    return {};
  }

  /// A policy of another id that says the same, such as one of the seeds.
  std::shared_ptr<const Policy> twin_of(const Policy& policy) const {
    const auto subjects_of = [](const Policy& of) {
      std::set<std::pair<SubjectType, std::string>> out;
      for (const auto& subject : of.subjects) out.emplace(subject.type, subject.value);
      return out;
    };
    for (const auto& other : repository_.policies())
      if (other->id != policy.id && other->name == policy.name && other->target_id == policy.target_id &&
          other->resource_type == policy.resource_type && other->effect == policy.effect &&
          other->priority == policy.priority && other->resource_pattern == policy.resource_pattern &&
          subjects_of(*other) == subjects_of(policy))
        return other;
    return nullptr;
  }

  Status logs() {
    std::uint64_t count = 0;
    for (;;) {
      auto rows = source_.next_log_rows();
      if (!rows) return rows.error();
      if (rows->empty()) break;
      std::vector<AuditRecord> batch;
      for (const auto& row : *rows) {
        AuditRecord record;
        record.id = text_of(row, "id");
        record.kind = "mcp";
        record.created_at = time_of(row, "created_at");
        record.session_id = text_of(row, "session_id");
        record.user_id = text_of(row, "user_id");
        if (const auto email = emails_.find(record.user_id); email != emails_.end())
          record.user_email = email->second;
        record.method = text_of(row, "method");
        record.target_name = text_of(row, "target_name");
        record.response_status = static_cast<int>(number_of(row, "response_status"));
        record.duration_ms = number_of(row, "duration_ms");
        if (const auto body = row.find("request_body"); body != row.end() && body->is_object())
          record.request_body = dump_json(*body);
        batch.push_back(std::move(record));
      }
      if (auto ok = audit_.append(batch); !ok) return ok;
      count += batch.size();
    }
    summary_.taken += count;
    report_({ReflowLine::Outcome::taken, "log", std::to_string(count) + " rows", {}});
    return {};
  }

  const ReflowOptions& options_;
  ReflowSource& source_;
  Repository& repository_;
  RowClock& clock_;
  AuditSink& audit_;
  const std::function<void(const ReflowLine&)>& report_;
  ReflowSummary summary_;
  std::set<std::string> users_;                 // that are here now
  std::map<std::string, std::string> emails_;   // of all its users, by id
  std::map<std::string, std::string> targets_;  // that are here now: id -> its name there
};

}  // namespace

Result<ReflowSummary> import_reflow(const ReflowOptions& options, RepositoryOptions into, AuditSink& audit,
                                    const std::function<void(const ReflowLine&)>& report) {
  if (options.encryption_key.size() != 32)
    return Error{ErrorCode::invalid_argument, "wrong_key", "Its encryption key has exactly 32 bytes.",
                 "encryption_key"};
  auto source = ReflowSource::open(options.url);
  if (!source) return source.error();
  const auto clock = std::make_shared<RowClock>();
  into.clock = clock;
  auto repository = Repository::open(std::move(into));
  if (!repository) return repository.error();
  Import import(options, *source, **repository, *clock, audit, report);
  const auto fits = import.key_fits();
  if (!fits) return fits.error();
  if (!*fits)
    return Error{ErrorCode::invalid_argument, "wrong_key",
                 "The key opens none of the stored values: it is not the key of that gateway.",
                 "encryption_key"};
  return import.run();
}

}  // namespace mcpgw
