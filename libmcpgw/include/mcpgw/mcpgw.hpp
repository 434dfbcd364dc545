// Umbrella: everything of mcpgw::core.
#pragma once

#include "mcpgw/admin_api.hpp"
#include "mcpgw/audit.hpp"
#include "mcpgw/authenticator.hpp"
#include "mcpgw/clock.hpp"
#include "mcpgw/gateway.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/model.hpp"
#include "mcpgw/policy_engine.hpp"
#include "mcpgw/random.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/resolvers.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/runtime.hpp"
#include "mcpgw/storage.hpp"
#include "mcpgw/upstream.hpp"
#include "mcpgw/version.hpp"
