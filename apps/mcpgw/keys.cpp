// mcpgw keys: new signing and encryption keys, while gateways run on the same storage. A new key is put into
// <data_dir>/secrets.json, told to the gateways through storage, and then everything sealed is sealed anew.
// The old one stays in the file to read with, so each step may be the last one before a crash.
#include <chrono>
#include <thread>

#include "cli.hpp"
#include "secrets_file.hpp"

namespace mcpgw::app {

namespace {

using std::chrono::steady_clock;

/// How long a gateway may go on sealing with the old key, and more.
constexpr std::chrono::milliseconds kTakenUp{1000};
constexpr std::chrono::milliseconds kReportEvery{500};
constexpr std::uint64_t kReportRows = 100;
constexpr int kMaxPasses = 10;

struct Nothing {};

/// The configured storage with the keys that are in force; no gateway on it.
struct Place {
  Opened opened;
  std::shared_ptr<Repository> repository;
};

Result<Place> open_place(Config config) {
  if (!database_exists(config.database))
    return Error{
        ErrorCode::not_found, "not_found",
        "There is no database yet, and nothing to do: mcpgw serve makes it and its keys at its first start"};
  auto opened = open_database(std::move(config));
  if (!opened) return opened.error();
  RepositoryOptions options;
  options.storage = opened->database.storage;
  options.keys = opened->config.gateway.encryption;
  auto repository = Repository::open(std::move(options));
  if (!repository) return repository.error();
  return Place{std::move(*opened), std::move(*repository)};
}

std::uint64_t total(const SealedValues& values) {
  std::uint64_t out = 0;
  for (const auto& [key, count] : values.by_key) out += count;
  return out;
}

std::uint64_t with_current(const SealedValues& values) {
  const auto found = values.by_key.find(values.current_key);
  return found == values.by_key.end() ? 0 : found->second;
}

/// Until a whole pass finds nothing, and no gateway can still be sealing with the old key.
Result<ResealProgress> reseal_all(Repository& repository, std::uint64_t values) {
  const auto begun = steady_clock::now();
  auto reported = begun;
  std::uint64_t before = 0, reported_rows = 0;
  const auto report = [&](const ResealProgress& now) {
    const auto done = before + now.resealed;
    if (done < reported_rows + kReportRows && steady_clock::now() - reported < kReportEvery) return;
    if (done == reported_rows) return;
    reported = steady_clock::now();
    reported_rows = done;
    std::fprintf(stderr, "re-sealed %llu of %llu values\n", static_cast<unsigned long long>(done),
                 static_cast<unsigned long long>(std::max(done, values)));
  };
  ResealProgress all;
  for (int pass = 0; pass < kMaxPasses; ++pass) {
    const bool settled = steady_clock::now() - begun >= kTakenUp;
    const auto progress = repository.reseal(report);
    if (!progress) return progress.error();
    before += progress->resealed;
    all.checked = progress->checked;
    all.failed = progress->failed;
    all.resealed = before;
    if (progress->resealed == 0 && settled) break;
    if (!settled) std::this_thread::sleep_until(begun + kTakenUp);
  }
  return all;
}

int report_reseal(const Invocation& invocation, const std::string& key, const ResealProgress& done,
                  bool resumed) {
  if (invocation.json)
    print_json({{"current_key", key},
                {"resumed", resumed},
                {"values", done.checked},
                {"resealed", done.resealed},
                {"unreadable", done.failed}});
  else
    print_line("key " + key + " is in force; " + std::to_string(done.resealed) + " of " +
               std::to_string(done.checked) + " values were sealed with it now" +
               (resumed ? ", going on with a rotation that had been interrupted" : ""));
  if (done.failed == 0) return kDone;
  return fail(
      std::to_string(done.failed) +
      " stored values cannot be opened with any key: set the missing key in encryption.previous_keys, or "
      "write those values anew");
}

/// `complete`: every value was looked at. Those that cannot be opened stay as they are.
int reseal(const Invocation& invocation, Config config, bool resumed, bool* complete = nullptr) {
  auto place = open_place(std::move(config));
  if (!place) return fail(place.error());
  if (auto status = place->repository->announce_keys(); !status) return fail(status.error());
  const auto values = place->repository->sealed_values();
  if (!values) return fail(values.error());
  const auto done = reseal_all(*place->repository, total(*values) - with_current(*values));
  if (!done)
    return fail(done.error().message +
                "; the new key is in force, run the command again to go on with the rest");
  if (complete) *complete = true;
  return report_reseal(invocation, values->current_key, *done, resumed);
}

int rotate_encryption(const Invocation& invocation) {
  auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  if (!config->needs_encryption_key()) {
    // The key is the configuration's: what is left to do is sealing with it.
    auto place = open_place(*config);
    if (!place) return fail(place.error());
    const auto values = place->repository->sealed_values();
    if (!values) return fail(values.error());
    if (total(*values) == with_current(*values))
      return fail(
          "encryption.key is configured, and everything is sealed with it: put a new key there and the old "
          "one "
          "into encryption.previous_keys, restart the gateway, and run this again");
    return reseal(invocation, std::move(*config), false);
  }
  {  // Whether there is anything at all, before a new key is made for it.
    auto place = open_place(*config);
    if (!place) return fail(place.error());
  }
  const auto random = make_system_random();
  const auto before = load_secrets(config->data_dir, *random, false);
  if (!before) return fail(before.error());
  const auto secrets = rotate_secret(config->data_dir, SecretKind::encryption, *random);
  if (!secrets) return fail(secrets.error());
  const auto data_dir = config->data_dir;
  bool complete = false;
  const int code = reseal(invocation, std::move(*config), before->reseal_pending, &complete);
  if (complete)
    if (auto status = finish_reseal(data_dir, secrets->encryption_key); !status) return fail(status.error());
  return code;
}

int rotate_jwt(const Invocation& invocation) {
  auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  if (!config->needs_jwt_secret())
    return fail(
        "jwt.secret is configured: put a new secret there and the old one into jwt.previous_secrets, and "
        "restart the "
        "gateway");
  const auto data_dir = config->data_dir;
  auto place = open_place(std::move(*config));
  if (!place) return fail(place.error());
  const auto secrets = rotate_secret(data_dir, SecretKind::jwt, *make_system_random());
  if (!secrets) return fail(secrets.error());
  if (auto status = place->repository->announce_keys(); !status) return fail(status.error());
  const auto previous = secrets->previous_jwt_secrets.size();
  if (invocation.json)
    print_json({{"rotated", "jwt"}, {"previous", previous}});
  else
    print_line("a new secret signs tokens; tokens of the " + std::to_string(previous) +
               " old ones hold as long as those are in secrets.json");
  return kDone;
}

int status(const Invocation& invocation) {
  auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  const auto source = [&](bool from_file) {
    return from_file ? config->data_dir + "/secrets.json" : "configuration";
  };
  const auto jwt_source = source(config->needs_jwt_secret());
  const auto key_source = source(config->needs_encryption_key());
  bool pending = false;
  if (config->needs_encryption_key())
    if (const auto secrets = load_secrets(config->data_dir, *make_system_random(), false))
      pending = secrets->reseal_pending;
  auto place = open_place(std::move(*config));
  if (!place) return fail(place.error());
  const auto values = place->repository->sealed_values();
  if (!values) return fail(values.error());
  const auto& gateway = place->opened.config.gateway;
  const auto current = with_current(*values);
  if (invocation.json) {
    print_json({{"jwt", {{"source", jwt_source}, {"previous", gateway.previous_jwt_secrets.size()}}},
                {"encryption",
                 {{"source", key_source},
                  {"current_key", values->current_key},
                  {"previous", gateway.encryption.previous.size()},
                  {"values", {{"current", current}, {"other", total(*values) - current}}},
                  {"unreadable", values->unreadable},
                  {"rotation_pending", pending}}}});
    return kDone;
  }
  print_table({"KEY", "FROM", "OLD ONES KEPT"},
              {{"jwt", jwt_source, std::to_string(gateway.previous_jwt_secrets.size())},
               {"encryption " + values->current_key, key_source,
                std::to_string(gateway.encryption.previous.size())}});
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, count] : values->by_key)
    rows.push_back({key, std::to_string(count), key == values->current_key ? "in force" : "old"});
  print_line("");
  print_table({"SEALED WITH", "VALUES", "KEY IS"}, rows);
  if (values->unreadable > 0) print_line(std::to_string(values->unreadable) + " of them cannot be opened");
  if (pending) print_line("a rotation was interrupted: run mcpgw keys rotate encryption to go on");
  return kDone;
}

}  // namespace

void add_keys(CLI::App& app, Invocation& invocation) {
  auto& keys = *app.add_subcommand("keys", "Signing and encryption keys")->require_subcommand(1);
  auto& rotate = *keys.add_subcommand("rotate", "Puts a new key in force; old ones stay to read with")
                      ->require_subcommand(1);
  const auto add = [&invocation](CLI::App& parent, const char* name, const char* help,
                                 int (*action)(const Invocation&)) {
    add_action<Nothing>(
        parent, invocation, name, help,
        [&invocation, action](const Nothing&) {
          const int code = local_only(invocation, "mcpgw keys");
          return code == kDone ? action(invocation) : code;
        },
        nullptr);
  };
  add(rotate, "jwt", "The secret that signs tokens", rotate_jwt);
  add(rotate, "encryption",
      "The key of stored credentials; seals them anew, or goes on where that was interrupted",
      rotate_encryption);
  add(keys, "status", "Shows which keys are in force and what they seal", status);
}

}  // namespace mcpgw::app
