// Everything that the server does over TCP, over TLS.
#define MCPGW_TEST_OVER_TLS
#include "unit/server_stream_test.cpp"
#include "unit/server_test.cpp"
#include "unit/websocket_server_test.cpp"
