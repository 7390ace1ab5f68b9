# The llm command line, by its file of OpenAI-compatible models.
set -euo pipefail
LLM_USER_PATH=$(mktemp -d)
export LLM_USER_PATH
trap 'rm -rf "$LLM_USER_PATH"' EXIT
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<YAML
- model_id: freehold
  model_name: smol
  api_base: $FREEHOLD_URL/v1
  api_key_name: freehold
YAML
llm keys set freehold --value "$FREEHOLD_KEY"
test -n "$(llm -m freehold -o max_tokens 12 'What is gravity?')"
test -n "$(llm -m freehold -o max_tokens 12 --no-stream 'What is gravity?')"
test -n "$(llm -c -m freehold -o max_tokens 12 'Go on.')"
echo "stream, no stream, continued conversation"
