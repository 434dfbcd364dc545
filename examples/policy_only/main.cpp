// Policies without a gateway: a program that asks whether somebody may use something.
//
//   $ policy_only dev git git_log
//   allow: devs read git
//   $ policy_only dev git git_push
//   deny: no_matching_policy
#include <cstdio>
#include <mcpgw/policy_engine.hpp>
#include <mcpgw/repository.hpp>
#include <string>

namespace {

int fail(const mcpgw::Error& error) {
  std::fprintf(stderr, "%s: %s\n", error.reason.c_str(), error.message.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: policy_only <group> <target> <tool>\n");
    return 2;
  }
  // With open_sqlite() or open_postgres() these would be the policies of a gateway that runs.
  mcpgw::RepositoryOptions options;
  options.storage = mcpgw::make_memory_storage();
  options.keys.current = "0123456789abcdefghijklmnopqrstuv";  // seals credentials: a real one is random
  auto repository = mcpgw::Repository::open(std::move(options));
  if (!repository) return fail(repository.error());

  mcpgw::Target target;
  target.name = "git";
  target.url = "https://git.example/mcp";
  auto git = (*repository)->create_target(std::move(target));
  if (!git) return fail(git.error());

  mcpgw::Policy policy;
  policy.name = "devs read git";
  policy.target_id = git->id;
  policy.resource_type = mcpgw::ResourceType::tool;
  policy.resource_pattern = "^git_(log|diff|show)$";
  policy.subjects = {{{}, {}, mcpgw::SubjectType::group, "dev", {}}};
  if (auto made = (*repository)->create_policy(std::move(policy)); !made) return fail(made.error());

  const auto engine = mcpgw::PolicyEngine::create(*repository);
  mcpgw::Principal somebody;
  somebody.user_id = "somebody";
  somebody.role = "user";
  somebody.groups = {argv[1]};
  const auto asked = (*repository)->target_by_name(argv[2]);
  const auto decision =
      engine->evaluate(somebody, asked ? asked->id : std::string(), mcpgw::ResourceType::tool, argv[3]);
  std::printf("%s: %s\n", decision.allowed() ? "allow" : "deny",
              decision.allowed() ? decision.policy_name.c_str() : to_string(decision.reason));
  return decision.allowed() ? 0 : 1;
}
