// mcpgw keys: new signing and encryption keys, while gateways run on the same storage. A new key is put into
// <data_dir>/secrets.json (or, where keys are configured, into every gateway's configuration), put in force
// through storage, and then everything sealed is sealed anew, here or by a gateway when this ends early. The
// old one stays in the file, so each step may be the last one before a crash.
#include <chrono>

#include "cli.hpp"
#include "secrets_file.hpp"

namespace mcpgw::app {

namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kReportEvery{500};
constexpr std::uint64_t kReportRows = 100;

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

/// Works on the rotation, or watches whoever does, and says how far it has come.
Result<KeyRotation> reseal_all(Repository& repository) {
  auto reported = steady_clock::now();
  std::uint64_t reported_rows = 0;
  return repository.run_key_rotation([&](const KeyRotation& now) {
    const auto done = now.progress.resealed;
    if (done == reported_rows ||
        (done < reported_rows + kReportRows && steady_clock::now() - reported < kReportEvery))
      return true;
    reported = steady_clock::now();
    reported_rows = done;
    std::fprintf(stderr, "re-sealed %llu of %llu values\n", static_cast<unsigned long long>(done),
                 static_cast<unsigned long long>(std::max(done, now.total)));
    return true;
  });
}

int report_reseal(const Invocation& invocation, const KeyRotation& done, bool resumed) {
  const auto& [checked, resealed, failed] = done.progress;
  if (invocation.json)
    print_json({{"current_key", done.key},
                {"resumed", resumed},
                {"values", checked},
                {"resealed", resealed},
                {"unreadable", failed}});
  else
    print_line("key " + done.key + " is in force; " + std::to_string(resealed) + " of " +
               std::to_string(checked) + " values were sealed with it now" +
               (resumed ? ", going on with a rotation that had been interrupted" : ""));
  if (failed == 0) return kDone;
  return fail(
      std::to_string(failed) +
      " stored values cannot be opened with any key: set the missing key in encryption.previous_keys, or "
      "write those values anew");
}

/// `complete`: every value was looked at. Those that cannot be opened stay as they are.
int reseal(const Invocation& invocation, Config config, bool resumed, bool* complete = nullptr) {
  auto place = open_place(std::move(config));
  if (!place) return fail(place.error());
  auto& repository = *place->repository;
  const auto before = repository.key_rotation();
  if (!before) return fail(before.error());
  const auto values = repository.sealed_values();
  if (!values) return fail(values.error());
  const bool same = before->key == values->configured_key;
  resumed = resumed || (same && before->state == KeyRotation::State::running);
  // A gateway may have finished what a command that was interrupted had begun.
  const bool finished = resumed && same && before->state == KeyRotation::State::done;
  if (!finished)
    if (auto status = repository.start_key_rotation(); !status) return fail(status.error());
  const auto done = reseal_all(repository);
  if (!done)
    return fail(done.error().message +
                "; the new key is in force, run the command again to go on with the rest");
  if (complete) *complete = true;
  return report_reseal(invocation, *done, resumed);
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
    const auto rotation = place->repository->key_rotation();
    if (!rotation) return fail(rotation.error());
    const bool in_force = place->repository->key_in_force() == values->configured_key;
    if (in_force && total(*values) == with_current(*values) && rotation->state != KeyRotation::State::running)
      return fail(
          "encryption.key is configured, and everything is sealed with it: put a new key there and the old "
          "one into encryption.previous_keys, on every gateway, and run this again");
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
  const auto rotation = place->repository->key_rotation();
  if (!rotation) return fail(rotation.error());
  const bool running = rotation->state == KeyRotation::State::running;
  if (pending)  // perhaps a gateway has finished it
    pending = rotation->key != values->configured_key || rotation->state != KeyRotation::State::done;
  const bool waiting = values->configured_key != place->repository->key_in_force();
  const auto& gateway = place->opened.config.gateway;
  const auto current = with_current(*values);
  if (invocation.json) {
    print_json(
        {{"jwt", {{"source", jwt_source}, {"previous", gateway.previous_jwt_secrets.size()}}},
         {"encryption",
          {{"source", key_source},
           {"current_key", values->current_key},
           {"previous", gateway.encryption.previous.size()},
           {"configured_key", values->configured_key},
           {"values", {{"current", current}, {"other", total(*values) - current}}},
           {"rotation",
            {{"running", running}, {"resealed", rotation->progress.resealed}, {"total", rotation->total}}},
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
  if (waiting)
    print_line("another key is configured (" + values->configured_key +
               "): run mcpgw keys rotate encryption when every gateway has it");
  if (running || pending)
    print_line("a rotation was interrupted or is under way (" + std::to_string(rotation->progress.resealed) +
               " of " + std::to_string(rotation->total) +
               " values): run mcpgw keys rotate encryption to go on with it");
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
