// Puts the shared library (MCPGW_C_LIBRARY) and its header into the package.
import { copyFileSync, mkdirSync } from 'node:fs';

const library = process.env.MCPGW_C_LIBRARY;
if (!library) throw new Error('MCPGW_C_LIBRARY must name libmcpgw_c.so; build it with: cmake --build --preset release --target mcpgw_c');
mkdirSync(new URL('native/', import.meta.url), { recursive: true });
copyFileSync(library, new URL('native/libmcpgw_c.so', import.meta.url));
copyFileSync(new URL('../c/include/mcpgw/mcpgw.h', import.meta.url), new URL('native/mcpgw.h', import.meta.url));
