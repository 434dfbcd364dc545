{{- define "mcpgw.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* By these the release's own pods are found. Not "managed-by: mcpgw": that is what the gateway starts itself. */}}
{{- define "mcpgw.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "mcpgw.labels" -}}
{{ include "mcpgw.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "mcpgw.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "mcpgw.fullname" .) -}}
{{- end -}}

{{- define "mcpgw.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "mcpgw.scheme" -}}
{{- $tls := dig "server" "tls" dict .Values.config -}}
{{- if $tls.cert }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{/* What no schema can say: values that need one another. */}}
{{- define "mcpgw.check" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.existingSecret) -}}
{{- fail "replicas: more than one need a PostgreSQL database: set database.existingSecret" -}}
{{- end -}}
{{- if and .Values.database.existingSecret (not .Values.keys.existingSecret) -}}
{{- fail "keys.existingSecret: replicas over a PostgreSQL database need the same keys: name a Secret with MCPGW_JWT_SECRET and MCPGW_ENCRYPTION_KEY" -}}
{{- end -}}
{{- if dig "server" "tls" "client_ca" "" .Values.config -}}
{{- fail "config.server.tls.client_ca: the cluster's probes have no client certificate; ask for them in front of the gateway" -}}
{{- end -}}
{{- end -}}
