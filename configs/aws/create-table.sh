#!/bin/sh
# Creates a table in Feast's layout, as `feast apply` does, but with the stream through which Larder follows it. For
# administrators of the account: Larder's own roles have no such permissions, except the one with materialize.json.
#
#   ./create-table.sh churn.customer_usage          # PROJECT.VIEW, as Feast names it
#   ./create-table.sh churn.customer_usage --pitr   # with point-in-time recovery, which costs by the table's size
#
# Region and credentials are those of the AWS CLI: AWS_REGION, AWS_PROFILE. An existing table keeps its items and gets
# its stream.
set -eu

usage() {
    echo "usage: $0 TABLE [--pitr]" >&2
    exit 2
}

[ $# -ge 1 ] || usage
table=$1
pitr=no
case ${2-} in
    "") ;;
    --pitr) pitr=yes ;;
    *) usage ;;
esac

# Version 1 of the AWS CLI only reads this variable.
if [ -n "${AWS_REGION-}" ]; then
    export AWS_DEFAULT_REGION="$AWS_REGION"
fi

# NEW_IMAGE: a change contains the new state of the item. With less, Larder must read each changed item again; with more,
# it receives data that it does not use.
stream=StreamEnabled=true,StreamViewType=NEW_IMAGE

if ! found=$(aws dynamodb describe-table --table-name "$table" --query Table.StreamSpecification.StreamViewType \
    --output text 2>&1); then
    case $found in
        *ResourceNotFoundException*) ;;
        *)
            echo "$found" >&2
            exit 1
            ;;
    esac
    # On demand: a first scan, and a job that writes every few hours, are bursts, which provisioned capacity throttles.
    aws dynamodb create-table \
        --table-name "$table" \
        --attribute-definitions AttributeName=entity_id,AttributeType=S \
        --key-schema AttributeName=entity_id,KeyType=HASH \
        --billing-mode PAY_PER_REQUEST \
        --stream-specification "$stream" \
        >/dev/null
    aws dynamodb wait table-exists --table-name "$table"
elif [ "$found" = None ]; then
    aws dynamodb update-table --table-name "$table" --stream-specification "$stream" >/dev/null
    aws dynamodb wait table-exists --table-name "$table"
elif [ "$found" != NEW_IMAGE ] && [ "$found" != NEW_AND_OLD_IMAGES ]; then
    # A stream's kind cannot be changed, and other readers would lose the stream.
    echo "table $table has a stream of kind $found; turn it off first, or give Larder dynamodb:BatchGetItem" >&2
    exit 1
fi

if [ "$pitr" = yes ]; then
    aws dynamodb update-continuous-backups \
        --table-name "$table" \
        --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true \
        >/dev/null
fi
echo "table $table exists and has a stream"
