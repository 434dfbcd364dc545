// Runs a Repository over a storage of one's own. Every start adds a user and shows who is there:
//
//   $ custom_storage gateway.journal
//   user-1@example.org (version 1)
#include <cstdio>
#include <string>

#include "journal_storage.hpp"
#include "mcpgw/repository.hpp"

namespace {

int fail(const mcpgw::Error& error) {
  std::fprintf(stderr, "%s: %s\n", error.reason.c_str(), error.message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: custom_storage <journal file>\n");
    return 2;
  }
  auto storage = JournalStorage::open(argv[1]);
  if (!storage) return fail(storage.error());

  mcpgw::RepositoryOptions options;
  options.storage = *storage;
  // An example's key. A real one is 32 random bytes from a secret store.
  options.keys.current = "0123456789abcdefghijklmnopqrstuv";
  auto repository = mcpgw::Repository::open(options);
  if (!repository) return fail(repository.error());

  mcpgw::User user;
  user.email = "user-" + std::to_string((*repository)->users().size() + 1) + "@example.org";
  user.role = "user";
  if (auto created = (*repository)->create_user(user); !created) return fail(created.error());
  for (const auto& known : (*repository)->users())
    std::printf("%s (version %llu)\n", known->email.c_str(), static_cast<unsigned long long>(known->version));
  return 0;
}
