// Puts the shared library and its header into the package: the library that MCPGW_C_LIBRARY names, else one that CMake builds from
// the source tree that this directory is part of.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

function builtLibrary() {
  if (process.env.MCPGW_C_LIBRARY) return process.env.MCPGW_C_LIBRARY;
  // What npm prints on its own standard output is its answer: the build's lines go elsewhere.
  const cmake = (...words) => execFileSync('cmake', words, { cwd: root, stdio: ['ignore', 2, 2] });
  try {
    cmake('--preset', 'bindings');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    throw new Error('CMake is missing; README.md names what building the library needs. Or set MCPGW_C_LIBRARY to a libmcpgw_c.so');
  }
  // The preset says where it is built and of which parts; the Python package asks for the same.
  cmake('--build', '--preset', 'bindings', '-j', String(cpus().length || 1));
  return `${root}build/bindings/bindings/c/libmcpgw_c.so`;
}

const library = builtLibrary();
mkdirSync(new URL('native/', import.meta.url), { recursive: true });
copyFileSync(library, new URL('native/libmcpgw_c.so', import.meta.url));
copyFileSync(new URL('../c/include/mcpgw/mcpgw.h', import.meta.url), new URL('native/mcpgw.h', import.meta.url));
