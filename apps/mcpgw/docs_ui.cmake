# /docs shows the Scalar API reference when its npm package is there (npm ci in apps/docs); without it /docs is a plain
# page. The bundle becomes part of the program.
set(MCPGW_DOCS_UI AUTO CACHE STRING "Scalar at /docs: ON, OFF, or AUTO (when MCPGW_DOCS_UI_SCRIPT exists)")
set_property(CACHE MCPGW_DOCS_UI PROPERTY STRINGS AUTO ON OFF)
set(MCPGW_DOCS_UI_SCRIPT ${PROJECT_SOURCE_DIR}/apps/docs/node_modules/@scalar/api-reference/dist/browser/standalone.js
    CACHE FILEPATH "Scalar's browser bundle")

target_sources(mcpgw PRIVATE docs_ui.cpp)
if(NOT MCPGW_WITH_DOCS)
  set(docs_ui OFF)
elseif(MCPGW_DOCS_UI STREQUAL "AUTO" AND NOT EXISTS ${MCPGW_DOCS_UI_SCRIPT})
  set(docs_ui OFF)
else()
  set(docs_ui ${MCPGW_DOCS_UI})
endif()
if(docs_ui)
  if(NOT EXISTS ${MCPGW_DOCS_UI_SCRIPT})
    message(FATAL_ERROR "MCPGW_DOCS_UI is ON, but there is no ${MCPGW_DOCS_UI_SCRIPT}: run npm ci in apps/docs")
  endif()
  enable_language(ASM)
  set(docs_ui_gzip ${CMAKE_CURRENT_BINARY_DIR}/scalar.js.gz)
  configure_file(docs_ui.S.in docs_ui.S @ONLY)
  add_custom_command(OUTPUT ${docs_ui_gzip} COMMAND mcpgw_embed_docs gzip ${MCPGW_DOCS_UI_SCRIPT} ${docs_ui_gzip}
                     DEPENDS mcpgw_embed_docs ${MCPGW_DOCS_UI_SCRIPT} VERBATIM)
  set_source_files_properties(${CMAKE_CURRENT_BINARY_DIR}/docs_ui.S PROPERTIES
                              OBJECT_DEPENDS "${MCPGW_DOCS_UI_SCRIPT};${docs_ui_gzip}")
  target_sources(mcpgw PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/docs_ui.S)
  set_source_files_properties(docs_ui.cpp PROPERTIES COMPILE_DEFINITIONS MCPGW_HAVE_DOCS_UI)
else()
  set_source_files_properties(docs_ui.cpp PROPERTIES COMPILE_DEFINITIONS "")
endif()
message(STATUS "Scalar at /docs: ${docs_ui}")
