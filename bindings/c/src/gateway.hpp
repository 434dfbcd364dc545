#pragma once

#include <memory>

#include "config.hpp"
#include "mcpgw/gateway.hpp"
#include "support.hpp"

namespace mcpgw::capi {

/// Vouches for whoever holds the handle: that is an administrator already. Known by a secret of this process.
class HostAdministrator final : public TokenVerifier {
 public:
  std::optional<Result<Principal>> verify(std::string_view token) override;
  /// A request to the REST API, for the sake of `user_id` or nobody.
  HttpRequest request(std::string_view user_id, std::string_view method, std::string_view target,
                      std::string_view body) const;

 private:
  const std::string secret_;

 public:
  HostAdministrator();
};

/// Reads the pairs of pointer and length and hands the answer out.
mcpgw_status admin(std::string_view user_id, std::string_view method, std::string_view target,
                   std::string_view body, int* out_status, char** out_body, char** out_error,
                   const HostAdministrator& administrator,
                   const std::function<HttpResponse(HttpRequest)>& handle);

}  // namespace mcpgw::capi

struct mcpgw_gateway {
  mcpgw::app::Config config;  ///< for servers
  std::shared_ptr<mcpgw::capi::CallbackThreads> threads;
  std::shared_ptr<mcpgw::capi::HostAdministrator> administrator;
  std::shared_ptr<mcpgw::Gateway> gateway;
  mcpgw::LogSink log;
};
