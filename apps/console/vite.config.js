import { defineConfig } from 'vite';

const gateway = process.env.MCPGW_URL ?? 'http://127.0.0.1:3000';

export default defineConfig({
  base: './', // the gateway may be below a path of a proxy
  build: {
    target: 'es2022',
    assetsInlineLimit: 0, // the page's policy permits files of its own origin only
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  // npm run dev: the page from here, everything else from a gateway that runs.
  server: {
    proxy: {
      '/api': { target: gateway, ws: true },
      '/version': gateway,
      '/docs': gateway,
    },
  },
});
