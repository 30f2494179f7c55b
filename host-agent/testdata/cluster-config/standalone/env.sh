# cni.mode = "standalone": aws-node must not run on these nodes. It tolerates every taint; what
# keeps it off is a node affinity, here on the label sluice.dev/network=standalone, which nodes must
# have from their registration on.
kubectl patch daemonset aws-node -n kube-system --type json --patch '[{"op":"add","path":"/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/-","value":{"key":"sluice.dev/network","operator":"NotIn","values":["standalone"]}}]'
