// Starts the Scalar API reference. Everything in it that would ask another host is off: fonts, telemetry, the
// proxy for requests, its AI features, its hosted client. The Content-Security-Policy forbids the rest.
const base = new URL('.', window.location.href).href;
Scalar.createApiReference('#app', {
  url: base + 'docs/openapi.json',
  servers: [{ url: base.replace(/\/$/, ''), description: 'This gateway' }],
  authentication: { preferredSecurityScheme: 'bearerAuth' },
  agent: { disabled: true },
  mcp: { disabled: true },
  telemetry: false,
  withDefaultFonts: false,
  proxyUrl: '',
  hideClientButton: true,
  showDeveloperTools: 'never',
  persistAuth: false,
  defaultOpenAllTags: true,
  defaultHttpClient: { targetKey: 'shell', clientKey: 'curl' },
  documentDownloadType: 'none',
});
