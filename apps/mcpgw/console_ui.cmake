# / is the web console (apps/console) when its npm packages are there (npm ci); without them it says how to get it.
# Vite builds the console, and what comes of it becomes part of the program.
set(MCPGW_CONSOLE AUTO CACHE STRING "Console at /: ON, OFF, or AUTO (when Node.js and the npm packages are there)")
set_property(CACHE MCPGW_CONSOLE PROPERTY STRINGS AUTO ON OFF)
find_program(MCPGW_NODE NAMES node nodejs DOC "Node.js 18 or newer, which builds the console")

set(console_dir ${PROJECT_SOURCE_DIR}/apps/console)
set(console_vite ${console_dir}/node_modules/vite/bin/vite.js)
if(NOT TARGET mcpgw_embed_docs)  # MCPGW_WITH_DOCS=OFF: nothing that turns files into code
  set(console_missing "MCPGW_WITH_DOCS")
elseif(NOT MCPGW_NODE)
  set(console_missing "Node.js")
elseif(NOT EXISTS ${console_vite} OR NOT EXISTS ${console_dir}/node_modules/preact/package.json)
  set(console_missing "npm packages (run npm ci --ignore-scripts in apps/console)")
else()
  set(console_missing "")
endif()
set(console_ui ${MCPGW_CONSOLE})
if(MCPGW_CONSOLE STREQUAL "AUTO")
  if(console_missing)
    set(console_ui OFF)
  else()
    set(console_ui ON)
  endif()
elseif(MCPGW_CONSOLE AND console_missing)
  message(FATAL_ERROR "MCPGW_CONSOLE is ON, but this is missing: ${console_missing}")
endif()

target_sources(mcpgw PRIVATE console_ui.cpp)
if(console_ui)
  file(GLOB_RECURSE console_sources CONFIGURE_DEPENDS ${console_dir}/src/*)
  list(APPEND console_sources ${console_dir}/index.html ${console_dir}/vite.config.js ${console_dir}/tsconfig.json
       ${console_dir}/package.json ${console_dir}/package-lock.json)
  set(console_built ${CMAKE_CURRENT_BINARY_DIR}/console)
  set(console_data ${CMAKE_CURRENT_BINARY_DIR}/console_data.cpp)
  add_custom_command(
    OUTPUT ${console_data}
    COMMAND ${CMAKE_COMMAND} -E env NODE_ENV=production ${MCPGW_NODE} ${console_vite} build --configLoader native
            --outDir ${console_built} --emptyOutDir --logLevel warn
    COMMAND mcpgw_embed_docs files ${console_data} console_ui.hpp ${console_built}
    DEPENDS mcpgw_embed_docs ${console_sources}
    WORKING_DIRECTORY ${console_dir} COMMENT "Building the console" VERBATIM)
  target_sources(mcpgw PRIVATE ${console_data})
  set_source_files_properties(${console_data} PROPERTIES
                              COMPILE_OPTIONS $<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wno-overlength-strings>)  # as docs_data.cpp
  set_source_files_properties(console_ui.cpp PROPERTIES COMPILE_DEFINITIONS MCPGW_HAVE_CONSOLE)
else()
  set_source_files_properties(console_ui.cpp PROPERTIES COMPILE_DEFINITIONS "")
endif()
message(STATUS "Console at /: ${console_ui}")
