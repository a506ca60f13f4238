{{- define "speech.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "speech.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "speech.labels" -}}
{{ include "speech.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "speech.scheme" -}}
{{- if .Values.tls.secret }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{- /* Longer than what the pod itself waits: Kubernetes kills at the end of it. */ -}}
{{- define "speech.grace" -}}
{{- add .Values.drain.preStopSeconds .Values.drain.timeoutSeconds 60 -}}
{{- end -}}

{{- /* Of each process: a pod's /tmp holds those of all. */ -}}
{{- define "speech.maxFiles" -}}
{{- if gt (int .Values.gateway.processes) (int .Values.gateway.maxFiles) -}}
{{- fail (printf "gateway.maxFiles is %v; valid: at least gateway.processes, %v" .Values.gateway.maxFiles .Values.gateway.processes) -}}
{{- end -}}
{{- div .Values.gateway.maxFiles .Values.gateway.processes -}}
{{- end -}}
