#include "secrets_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "config_values.hpp"

namespace mcpgw::app {

namespace {

using nlohmann::json;

constexpr const char* kPreviousJwt = "previous_jwt_secrets";
constexpr const char* kPreviousKeys = "previous_encryption_keys";
constexpr const char* kPending = "reseal_pending";
constexpr std::size_t kMaxPrevious = 100;

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }

 private:
  int descriptor_;
};

Error insecure(const std::string& what, const std::string& remedy) {
  return Error{ErrorCode::permission_denied, "insecure_file", what + "; " + remedy};
}

Error system_error(const std::string& what) {
  return Error{ErrorCode::unavailable, "io_error", what + ": " + std::strerror(errno)};
}

std::string hex(const std::string& bytes) {
  static const char* const kDigits = "0123456789abcdef";
  std::string out;
  for (const char byte : bytes) {
    out += kDigits[static_cast<unsigned char>(byte) >> 4];
    out += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return out;
}

std::string random_hex(Random& random) {
  std::string bytes(32, '\0');
  random.fill(bytes.data(), bytes.size());
  return hex(bytes);
}

Error damaged_file(const std::string& path) {
  return Error{ErrorCode::data_loss, "secrets_damaged",
               path + " is damaged; restore it from a backup, or set jwt.secret and encryption.key"};
}

/// The document of the file, whose form nobody has looked at yet. Nullopt: there is no such file.
Result<std::optional<json>> read_document(const std::string& path) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT) return std::optional<json>();
    if (errno == ELOOP) return insecure(path + " is a symbolic link", "put the file itself there");
    return system_error(path + " cannot be opened");
  }
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return system_error(path + " cannot be read");
  if (!S_ISREG(info.st_mode)) return insecure(path + " is not a file", "remove it");
  if (info.st_uid != ::geteuid())
    return insecure(path + " belongs to another user", "give it to the user that runs mcpgw");
  if ((info.st_mode & 07777) != 0600)
    return insecure(path + " does not have mode 0600", "run: chmod 600 " + path);
  std::string text(64 * 1024, '\0');
  const auto size = ::read(file.get(), text.data(), text.size());
  if (size < 0) return system_error(path + " cannot be read");
  text.resize(static_cast<std::size_t>(size));

  json value = json::parse(text, nullptr, false);
  if (!value.is_object()) return damaged_file(path);
  return std::optional<json>(std::move(value));
}

/// Whether all entries of a list member are secrets by `take`, which keeps them. An absent list is an empty
/// one.
template <class Take>
bool read_list(const json& value, const char* name, Take take) {
  const auto list = value.find(name);
  if (list == value.end()) return true;
  if (!list->is_array()) return false;
  for (const auto& entry : *list)
    if (!entry.is_string() || !secret_fault(entry.get<std::string>()).empty() ||
        !take(entry.get<std::string>()))
      return false;
  return true;
}

Result<StoredSecrets> parse_secrets(const json& value, const std::string& path) {
  const Error damaged = damaged_file(path);
  const auto jwt = value.find("jwt_secret"), key = value.find("encryption_key");
  if (jwt == value.end() || key == value.end() || !jwt->is_string() || !key->is_string()) return damaged;
  StoredSecrets out;
  out.jwt_secret = jwt->get<std::string>();
  const auto bytes = decode_key(key->get<std::string>());
  if (!secret_fault(out.jwt_secret).empty() || !secret_fault(key->get<std::string>()).empty() || !bytes)
    return damaged;
  out.encryption_key = *bytes;
  const bool lists = read_list(value, kPreviousJwt,
                               [&](std::string text) {
                                 out.previous_jwt_secrets.push_back(std::move(text));
                                 return true;
                               }) &&
                     read_list(value, kPreviousKeys, [&](const std::string& text) {
                       auto decoded = decode_key(text);
                       if (decoded) out.previous_encryption_keys.push_back(std::move(*decoded));
                       return decoded.has_value();
                     });
  const auto pending = value.find(kPending);
  if (!lists || (pending != value.end() && !pending->is_boolean())) return damaged;
  out.reseal_pending = pending != value.end() && pending->get<bool>();
  return out;
}

/// Nullopt: there is no such file.
Result<std::optional<StoredSecrets>> read_secrets(const std::string& path) {
  const auto document = read_document(path);
  if (!document) return document.error();
  if (!*document) return std::optional<StoredSecrets>();
  auto secrets = parse_secrets(**document, path);
  if (!secrets) return secrets.error();
  return std::optional<StoredSecrets>(std::move(*secrets));
}

Status sync_directory(const std::string& data_dir) {
  const File directory(::open(data_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0) return system_error(data_dir + " cannot be written to");
  return {};
}

/// A file beside `path` with that content, on the disk. Its name.
Result<std::string> write_beside(const std::string& path, const json& value, Random& random) {
  const std::string text = value.dump(2) + "\n";
  std::string temporary = path + "." + make_uuid(random) + ".tmp";
  const File file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return system_error(path + " cannot be written");
  const bool written = ::fchmod(file.get(), 0600) == 0 &&
                       ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(file.get()) == 0;
  if (written) return temporary;
  const auto error = system_error(path + " cannot be written");
  ::unlink(temporary.c_str());
  return error;
}

/// Changes the document as `change` does, one process at a time. What is in the file and unknown to us stays.
template <class Change>
Status update_document(const std::string& data_dir, Random& random, Change change) {
  const std::string path = data_dir + "/secrets.json";
  const File turn(
      ::open((data_dir + "/secrets.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!turn) return system_error(data_dir + " cannot be written to");
  while (::flock(turn.get(), LOCK_EX) != 0)
    if (errno != EINTR) return system_error(data_dir + "/secrets.lock cannot be locked");
  auto document = read_document(path);
  if (!document) return document.error();
  if (!*document)
    return Error{ErrorCode::not_found, "secrets_missing",
                 path + " does not exist: mcpgw serve makes it at its first start"};
  const auto secrets = parse_secrets(**document, path);
  if (!secrets) return secrets.error();
  auto changed = change(**document, *secrets);
  if (!changed) return changed.error();
  if (!*changed) return {};
  const auto temporary = write_beside(path, **document, random);
  if (!temporary) return temporary.error();
  if (::rename(temporary->c_str(), path.c_str()) != 0) {
    const auto error = system_error(path + " cannot be replaced");
    ::unlink(temporary->c_str());
    return error;
  }
  return sync_directory(data_dir);
}

/// The file appears whole or not at all, and never replaces one that another process made meanwhile.
Status write_secrets(const std::string& data_dir, const std::string& path, Random& random) {
  const auto temporary = write_beside(
      path, {{"jwt_secret", random_hex(random)}, {"encryption_key", random_hex(random)}}, random);
  if (!temporary) return temporary.error();
  const bool linked = ::link(temporary->c_str(), path.c_str()) == 0 || errno == EEXIST;
  const auto error = system_error(path + " cannot be made");
  ::unlink(temporary->c_str());
  if (!linked) return error;
  return sync_directory(data_dir);
}

}  // namespace

Status prepare_data_dir(const std::string& data_dir, bool* created) {
  std::error_code error;
  const auto parent = std::filesystem::path(data_dir).lexically_normal().parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  const bool made = ::mkdir(data_dir.c_str(), 0700) == 0;
  if (created) *created = made;
  if (!made && errno != EEXIST) return system_error(data_dir + " cannot be made");
  struct stat info {};
  if (::stat(data_dir.c_str(), &info) != 0) return system_error(data_dir + " cannot be read");
  if (!S_ISDIR(info.st_mode))
    return insecure(data_dir + " is not a directory", "remove it or set server.data_dir");
  if (info.st_uid != ::geteuid())
    return insecure(data_dir + " belongs to another user",
                    "give it to the user that runs mcpgw, or set server.data_dir");
  if ((info.st_mode & 0777) != 0700)
    return insecure(data_dir + " does not have mode 0700", "run: chmod 700 " + data_dir);
  return {};
}

Result<StoredSecrets> load_secrets(const std::string& data_dir, Random& random, bool may_create) {
  const std::string path = data_dir + "/secrets.json";
  auto found = read_secrets(path);
  if (!found) return found.error();
  if (*found) return std::move(**found);
  if (!may_create)
    return Error{
        ErrorCode::not_found, "secrets_missing",
        path +
            " is missing; without it nothing in the database can be read: restore it from a backup, or set "
            "jwt.secret and encryption.key"};
  if (auto status = write_secrets(data_dir, path, random); !status) return status.error();
  found = read_secrets(path);
  if (!found) return found.error();
  if (!*found) return Error{ErrorCode::unavailable, "io_error", path + " vanished"};
  (**found).created = true;
  return std::move(**found);
}

Result<StoredSecrets> rotate_secret(const std::string& data_dir, SecretKind kind, Random& random) {
  const bool jwt = kind == SecretKind::jwt;
  auto status =
      update_document(data_dir, random, [&](json& document, const StoredSecrets& secrets) -> Result<bool> {
        if (!jwt && secrets.reseal_pending) return false;
        const char* const current = jwt ? "jwt_secret" : "encryption_key";
        json& previous = document[jwt ? kPreviousJwt : kPreviousKeys];
        if (!previous.is_array()) previous = json::array();
        if (previous.size() >= kMaxPrevious)
          return Error{ErrorCode::resource_exhausted, "too_many_keys",
                       "secrets.json keeps 100 old ones already: remove those that nothing needs any more"};
        previous.insert(previous.begin(), document[current]);
        document[current] = random_hex(random);
        if (!jwt) document[kPending] = true;
        return true;
      });
  if (!status) return status.error();
  return load_secrets(data_dir, random, false);
}

Status finish_reseal(const std::string& data_dir, const std::string& encryption_key) {
  const auto random = make_system_random();
  return update_document(data_dir, *random,
                         [&](json& document, const StoredSecrets& secrets) -> Result<bool> {
                           if (!secrets.reseal_pending || secrets.encryption_key != encryption_key)
                             return false;
                           document.erase(kPending);
                           return true;
                         });
}

}  // namespace mcpgw::app
