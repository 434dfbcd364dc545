#include "cli.hpp"

int main(int argc, char** argv) {
  using namespace mcpgw::app;
  return run(argc, argv,
             {add_serve, add_user, add_token, add_target, add_policy, add_logs, add_keys, add_storage,
              add_import, add_doctor, add_version, add_completion});
}
